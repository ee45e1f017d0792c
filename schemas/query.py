"""The responses of the query port. `make schemas` writes `openapi.json` from them, docstrings included."""

from typing import Literal

from msgspec import Struct

from schemas.state import ConversationState, Media, TimeClass, Timestamp
from schemas.transition import WIRE_NAMES

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


class LiveCommunications(Struct, rename="camel", frozen=True):
    """A page of live communications of this worker's partitions, the oldest first."""

    partitions: list[int]
    """The partitions that were searched; other workers own the rest."""
    items: list[LiveCommunication]
    next: str | None
    """The `cursor` of the next page; None at the end. A page may hold fewer than `limit`, even none, before the end."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a request failed (RFC 9457)."""

    title: str
    status: int
    partition: int | None = None
    """The partition of the conversation, if it is known."""
