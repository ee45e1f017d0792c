"""The answers of the query port. `consumer/adapters/web/openapi.json` documents them for its users."""

from typing import Literal

from msgspec import Struct

from schemas.state import ConversationState, Media, TimeClass

Origin = Literal["worker", "state_topic"]
"""Where an answer is from: the memory of the worker that owns the partition, or the state topic, read just now."""


class StandingTransition(
    Struct,
    frozen=True,
    rename={
        "from_state": "from",
        "to_state": "to",
        "event_time": "eventTime",
        "time_class": "timeClass",
        "milliseconds_in_from": "millisecondsInFrom",
    },
):
    """A transition that was asserted and not retracted."""

    id: str
    from_state: str | None
    """None for the first state."""
    to_state: str
    event_time: str
    """ISO-8601 UTC with milliseconds."""
    time_class: TimeClass
    milliseconds_in_from: int | None
    """Time spent in `from`, None for the first state."""


class CommunicationView(Struct, rename="camel", frozen=True, kw_only=True):
    """One communication: the state it is in, or was in at `asOf`, and how it came there."""

    participant_id: str
    media: Media
    communication_id: str | None
    """None for a communication that only the flat shape has shown, which has no id there."""
    purpose: str | None
    """This and the following two are the participant's, as known now."""
    user_id: str | None
    queue_id: str | None
    state: str
    state_time: str
    time_class: TimeClass
    live: bool
    """Whether it has not ended."""
    disconnect_type: str | None
    """None while it has not ended."""
    transitions: list[StandingTransition]


class ConversationFound(Struct, rename="camel", frozen=True):
    """The newest committed state of a conversation."""

    partition: int
    origin: Origin
    state: ConversationState


class Timeline(Struct, rename="camel", frozen=True):
    """What happened in a conversation, by the best knowledge there is now."""

    partition: int
    origin: Origin
    conversation_id: str
    as_of: str | None
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
    state_time: str
    time_class: TimeClass
    since: str
    """When its first state began."""


class LiveCommunications(Struct, rename="camel", frozen=True):
    """A page of live communications of this worker's partitions, the oldest first."""

    partitions: list[int]
    """Those that were searched: other workers own the others."""
    items: list[LiveCommunication]
    next: str | None
    """The `cursor` of the next page; None at the end. A page may hold fewer than `limit`, even none, before the end."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why there is no answer (RFC 9457)."""

    title: str
    status: int
    partition: int | None = None
    """Where the conversation would be, if that is known."""
