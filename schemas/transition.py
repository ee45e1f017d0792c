"""What happened to a communication: the values of the topic `conversation-transitions`, keyed by conversation id."""

from typing import Literal

from msgspec import Struct

from schemas.state import Media, Source, TimeClass

TRANSITION_SCHEMA = 1
"""The `schema` number of a transition: it rises when a reader of the older form would go wrong."""

Operation = Literal["assert", "retract"]


class Context(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """What was known of the communication when the operation was published; it is not corrected afterwards."""

    purpose: str | None = None
    user_id: str | None = None
    queue_id: str | None = None
    disconnect_type: str | None = None


class Transition(
    Struct,
    frozen=True,
    gc=False,
    rename={
        "conversation_id": "conversationId",
        "participant_id": "participantId",
        "communication_id": "communicationId",
        "from_state": "from",
        "to_state": "to",
        "event_time": "eventTime",
        "time_class": "timeClass",
        "milliseconds_in_from": "millisecondsInFrom",
    },
):
    """A change from one state to another at an event time, asserted or retracted.

    `id` is the same whoever derives the transition, from whatever order of records. It may be asserted, retracted
    and asserted again: per id the last operation counts.
    """

    schema: int
    id: str
    op: Operation
    conversation_id: str
    participant_id: str
    communication_id: str | None
    """None for a communication that only the flat shape has shown, which has no id there."""
    media: Media
    from_state: str | None
    """None for the first state."""
    to_state: str
    event_time: str
    """ISO-8601 UTC with milliseconds."""
    time_class: TimeClass
    milliseconds_in_from: int | None
    """Time spent in `from` since it was entered last, None for the first state."""
    context: Context
    source: Source
