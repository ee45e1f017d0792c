"""What happened to a communication: the values of the topic `conversation-transitions`, keyed by conversation id."""

from typing import Final, Literal

from msgspec import Struct

from schemas.state import Media, Source, TimeClass, Timestamp

TRANSITION_SCHEMA = 1
"""The `schema` number of a transition: it rises when readers of the older form would misread it."""

WIRE_NAMES: Final = {
    "conversation_id": "conversationId",
    "participant_id": "participantId",
    "communication_id": "communicationId",
    "from_state": "from",
    "to_state": "to",
    "event_time": "eventTime",
    "time_class": "timeClass",
    "milliseconds_in_from": "millisecondsInFrom",
}
"""How the fields of a transition are published, wherever one is: `from` is a keyword of Python."""

Operation = Literal["assert", "retract"]


class Context(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """What was known of the communication when the operation was published. It is not corrected afterwards."""

    purpose: str | None = None
    user_id: str | None = None
    queue_id: str | None = None
    disconnect_type: str | None = None
    error_code: str | None = None
    disconnect_reasons: list[str] | None = None


class Transition(Struct, frozen=True, gc=False, rename=WIRE_NAMES):
    """A change from one state to another at an event time, asserted or retracted.

    Every worker derives the same `id`, from any order of records. A transition may be asserted, retracted and asserted
    again: per id the last operation counts.
    """

    schema: int
    id: str
    op: Operation
    conversation_id: str
    participant_id: str
    communication_id: str | None
    """None for a communication that only the flat shape showed, and without a co-browse session."""
    media: Media
    from_state: str | None
    """None for the first state."""
    to_state: str
    event_time: Timestamp
    time_class: TimeClass
    milliseconds_in_from: int | None
    """Time spent in `from` since it was last entered, None for the first state."""
    context: Context
    source: Source
