"""The responses of the query port. `make schemas` writes `openapi.json` from them, docstrings included."""

from typing import Literal

from msgspec import Struct

from schemas.state import ConversationState, Media, TimeClass, Timestamp
from schemas.transition import WIRE_NAMES, Transition

Origin = Literal["worker", "state_topic"]
"""Where a response is from: the memory of the worker that owns the partition, or the state topic, read on request."""


class StandingTransition(Struct, frozen=True, rename=WIRE_NAMES):
    """A transition that was asserted and not retracted."""

    id: str
    """That of the transition in the transitions topic."""
    from_state: str | None
    """None for the first state."""
    to_state: str
    event_time: Timestamp
    time_class: TimeClass
    milliseconds_in_from: int | None
    """Time spent in `from`, None for the first state."""


class CommunicationView(Struct, rename="camel", frozen=True, kw_only=True):
    """One communication: its state, now or at `asOf`, and the transitions that led to it."""

    participant_id: str
    media: Media
    communication_id: str | None
    """None for a communication that only the flat shape showed, and without a co-browse session."""
    purpose: str | None
    """The participant's, as known now."""
    user_id: str | None
    """The participant's, as known now."""
    queue_id: str | None
    """The participant's, as known now."""
    state: str
    state_time: Timestamp
    time_class: TimeClass
    live: bool
    """Whether it has not ended."""
    disconnect_type: str | None
    """None while it has not ended."""
    transitions: list[StandingTransition]


class ConversationFound(Struct, rename="camel", frozen=True):
    """The newest committed state of a conversation."""

    partition: int
    """The partition of the conversation in the input and in the state topic."""
    origin: Origin
    state: ConversationState


class Timeline(Struct, rename="camel", frozen=True):
    """The transitions of a conversation, as known now."""

    partition: int
    """The partition of the conversation in the input and in the state topic."""
    origin: Origin
    conversation_id: str
    as_of: Timestamp | None
    """Later transitions are left out; None for all."""
    live: int
    """How many communications had not ended."""
    communications: list[CommunicationView]
    """Those that had begun, by participant, media and communication id."""


class LiveCommunication(Struct, rename="camel", frozen=True, kw_only=True):
    """One communication that has not ended."""

    conversation_id: str
    participant_id: str
    media: Media
    communication_id: str | None
    purpose: str | None
    user_id: str | None
    queue_id: str | None
    state: str
    state_time: Timestamp
    time_class: TimeClass
    since: Timestamp
    """When its first state began."""


class MissingPartitions(Struct, rename="camel", frozen=True):
    """Partitions that an answer does not count, and why."""

    partitions: list[int]
    """Empty if it is not known which."""
    reason: str
    worker: str | None = None
    """The address of the worker that owns them, None if it is not known."""


class LiveCommunications(Struct, rename="camel", frozen=True):
    """A page of the live communications of all partitions, the oldest first."""

    partitions: list[int]
    """The partitions that were searched, each by its owner."""
    complete: bool
    """Whether these are all partitions. If not, there may be more live communications than the answer has."""
    missing: list[MissingPartitions]
    """Why it is not complete; empty if it is."""
    items: list[LiveCommunication]
    next: str | None
    """The `cursor` of the next page; None at the end. A page may hold fewer than `limit`, even none, before the end."""


class LiveCount(Struct, rename="camel", frozen=True):
    """How many communications are in a state of a medium."""

    media: Media
    state: str
    count: int


class LaneView(Struct, rename="camel", frozen=True, kw_only=True):
    """A partition of the input as its owner serves it. None for what the owner does not know (yet)."""

    partition: int
    worker: str | None
    """The address that the owner advertises (`CC_QUERY_ADVERTISED`), None if it advertises none."""
    phase: str
    """`running` while it reads records."""
    conversations: int
    """How many it knows."""
    lag_records: int | None
    restore_records: int | None
    """How many are left to restore."""
    problem: str | None
    """What keeps it from reading."""


class DeadLetterCount(Struct, rename="camel", frozen=True):
    """How many records became dead letters since the workers started."""

    reason: str
    count: int


class Overview(Struct, rename="camel", frozen=True, kw_only=True):
    """The whole consumer group at one moment."""

    partitions: list[int]
    """The partitions that were counted, each by its owner."""
    complete: bool
    """Whether these are all partitions. If not, there may be more than the answer counts."""
    missing: list[MissingPartitions]
    """Why it is not complete; empty if it is."""
    live: list[LiveCount]
    """Communications that have not ended; the largest number first."""
    lanes: list[LaneView]
    transitions: list[Transition]
    """The latest that were published by the workers that answered, the latest first."""
    dead_letters: list[DeadLetterCount]
    """Of the workers that answered; the largest number first."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a request failed (RFC 9457)."""

    title: str
    status: int
    partition: int | None = None
    """The partition of the conversation, if it is known."""
