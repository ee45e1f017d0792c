"""The rows of an export: which columns a table has, and what a record of Kafka changes in it.

Columns have the same names in every format. Times are published text, which is a timestamp in Parquet. `partition` and
`offset` are where the record is that gave the row; in this order rows are sorted within a day.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from consumer.core import timestamps
from consumer.core.record import Record
from consumer.engine.dead_letters import is_marker
from consumer.engine.dead_letters import parse as parse_dead_letter
from schemas.state import STATE_SCHEMA, CommunicationState, ConversationState, ParticipantState, Source, Timestamp
from schemas.transition import TRANSITION_SCHEMA, Transition

TableName = Literal["transitions", "log", "states", "dead-letters"]

_TRANSITION: Final = msgspec.json.Decoder(Transition)
_STATE: Final = msgspec.json.Decoder(ConversationState)
_ENCODER: Final = msgspec.json.Encoder()
_DAY_LENGTH: Final = len("2026-01-31")


class TransitionRow(Struct, frozen=True, gc=False):
    """`transitions`: a transition that stands, as it was asserted last."""

    conversation_id: str
    participant_id: str
    communication_id: str | None
    media: str
    from_state: str | None
    to_state: str
    event_time: Timestamp
    time_class: str
    milliseconds_in_from: int | None
    purpose: str | None
    user_id: str | None
    queue_id: str | None
    disconnect_type: str | None
    error_code: str | None
    id: str
    published_time: Timestamp | None
    """When the worker published it; after `event_time` by how late it became known."""
    source_offset: int
    partition: int
    offset: int


class OperationRow(TransitionRow, frozen=True, gc=False):
    """`log`: an operation on a transition, `assert` or `retract`."""

    op: str


class CommunicationRow(Struct, frozen=True, gc=False):
    """`states`: a communication with its participant and conversation; a conversation without any has one row."""

    conversation_id: str
    snapshot_time: Timestamp
    """The newest snapshot of the conversation."""
    external_tag: str | None
    participant_id: str | None
    purpose: str | None
    user_id: str | None
    queue_id: str | None
    team_id: str | None
    external_contact_id: str | None
    group_id: str | None
    consult_participant_id: str | None
    media: str | None
    communication_id: str | None
    standing: str | None
    state: str | None
    state_time: Timestamp | None
    time_class: str | None
    began: Timestamp | None
    live: bool | None
    initial_state: str | None
    direction: str | None
    provider: str | None
    disconnect_type: str | None
    error_code: str | None
    held: bool | None
    hold_start_time: Timestamp | None
    muted: bool | None
    message_type: str | None
    callback_scheduled_time: Timestamp | None
    wrapup_code: str | None
    wrapup_duration_seconds: int | None
    after_call_work_start_time: Timestamp | None
    after_call_work_end_time: Timestamp | None
    source_offset: int
    partition: int
    offset: int


_STATE_COLUMNS: Final = frozenset(CommunicationRow.__struct_fields__)


class DeadLetterRow(Struct, frozen=True, gc=False):
    """`dead-letters`: why a record could not be used, without its key and value."""

    time: Timestamp
    """When it became a dead letter."""
    reason: str
    detail: str
    source_topic: str
    source_partition: int
    source_offset: int
    source_time: Timestamp | None
    payload: str
    """Why the dead letter carries no key and value; empty if it does."""
    redrives: int
    service_version: str
    partition: int
    offset: int


Row = TransitionRow | CommunicationRow | DeadLetterRow
ROWS: Final[dict[TableName, type[Row]]] = {
    "transitions": TransitionRow,
    "log": OperationRow,
    "states": CommunicationRow,
    "dead-letters": DeadLetterRow,
}
TIMES: Final[dict[TableName, str]] = {
    "transitions": "event_time",
    "log": "event_time",
    "states": "snapshot_time",
    "dead-letters": "time",
}
"""The column by which a table is selected and divided into days."""


class Selection(Struct, frozen=True, rename="camel"):
    """The rows to export. An empty list selects all."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    """Rows before this time."""
    media: list[str] = []
    queues: list[str] = []

    def covers(self, time: str) -> bool:
        """Whether a time is in the range."""
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)

    def matches(self, row: TransitionRow | CommunicationRow) -> bool:
        """Whether media and queue of a row are selected."""
        return (not self.media or row.media in self.media) and (not self.queues or row.queue_id in self.queues)


class Cut(Struct, frozen=True, rename="camel"):
    """The part of the input that an export shows the effects of: the records of a partition before an offset."""

    input_topic: str
    partition: int
    committed: int
    """The group's committed offset; 0 if it never committed."""

    def covers(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record of the input is part of it. One of another topic was consumed long ago."""
        return topic != self.input_topic or partition != self.partition or offset < self.committed


class Change(Struct, frozen=True):
    """What a record changes in a table: the rows under its key give way to these."""

    key: bytes | None
    """None for rows that stay whatever follows."""
    day: str
    rows: list[bytes]
    """JSON objects; none if the rows under the key only go."""


def make_change(table: TableName, record: Record, cut: Cut, selection: Selection) -> Change | None:
    """The change by a record of the table's topic, None if there is none. Raises ValueError for any other record.

    Whether a transition stands is known only once all operations on it were seen, and each may have another context. So
    one that is not selected changes the table as well: it takes away what stood under the same id.
    """
    match table:
        case "transitions" | "log":
            return _change_transitions(record, cut, selection, is_log=table == "log")
        case "states":
            return _change_states(record, cut, selection)
        case "dead-letters":
            return _change_dead_letters(record, cut, selection)


def _change_transitions(record: Record, cut: Cut, selection: Selection, *, is_log: bool) -> Change | None:
    transition = _TRANSITION.decode(record.value or b"")
    _check_schema(transition.schema, TRANSITION_SCHEMA)
    day = _day(transition.event_time)
    # An id is a digest of media and event time among others, so that all operations on it are selected or none.
    if not _is_covered(cut, transition.source) or not selection.covers(transition.event_time):
        return None
    context = transition.context
    fields = (
        transition.conversation_id,
        transition.participant_id,
        transition.communication_id,
        transition.media,
        transition.from_state,
        transition.to_state,
        transition.event_time,
        transition.time_class,
        transition.milliseconds_in_from,
        context.purpose,
        context.user_id,
        context.queue_id,
        context.disconnect_type,
        context.error_code,
        transition.id,
        timestamps.normalize(record.timestamp_ms),
        transition.source.offset,
        record.partition,
        record.offset,
    )
    row = OperationRow(*fields, transition.op) if is_log else TransitionRow(*fields)
    is_selected = selection.matches(row)
    if is_log:
        return Change(None, day, [_ENCODER.encode(row)]) if is_selected else None
    stands = is_selected and transition.op == "assert"
    return Change(bytes.fromhex(transition.id), day, [_ENCODER.encode(row)] if stands else [])


def _change_states(record: Record, cut: Cut, selection: Selection) -> Change | None:
    if record.key is None:
        return None
    if record.value is None:  # it has no source: one between the cut and the end of the log counts
        return Change(record.key, "", [])
    state = _STATE.decode(record.value)
    _check_schema(state.schema, STATE_SCHEMA)
    if not _is_covered(cut, state.source):
        return None
    day = _day(state.snapshot_time)
    rows: list[bytes] = []
    if selection.covers(state.snapshot_time):
        rows = [_ENCODER.encode(row) for row in _state_rows(record, state) if selection.matches(row)]
    return Change(record.key, day, rows)


def _state_rows(record: Record, state: ConversationState) -> Iterator[CommunicationRow]:
    members: list[tuple[ParticipantState | None, CommunicationState | None]] = [
        (participant, communication)
        for participant in state.participants
        for communication in participant.communications
    ]
    for participant, communication in members or [(None, None)]:
        columns: dict[str, Any] = dict.fromkeys(_STATE_COLUMNS)
        for part in (participant, communication):  # where both have a column, the communication's value counts
            if part is not None:
                columns |= _select_columns(part) | _select_columns(part.details)
        columns |= {
            "conversation_id": state.conversation_id,
            "snapshot_time": state.snapshot_time,
            "external_tag": state.details and state.details.external_tag,
            "source_offset": state.source.offset,
            "partition": record.partition,
            "offset": record.offset,
        }
        yield CommunicationRow(**columns)


def _select_columns(part: Struct) -> dict[str, Any]:
    """The fields of a part of a state that are columns and have a value."""
    names = _STATE_COLUMNS.intersection(part.__struct_fields__)
    return {name: value for name in names if (value := getattr(part, name)) is not None}


def _change_dead_letters(record: Record, cut: Cut, selection: Selection) -> Change | None:
    letter = None if is_marker(record) else parse_dead_letter(record)
    if letter is None:
        return None
    source, time = letter.original, timestamps.normalize(letter.time_ms)
    if time is None:
        raise ValueError(f"no time of a dead letter: {letter.time_ms}")
    if not cut.covers(source.topic, source.partition, source.offset) or not selection.covers(time):
        return None
    row = DeadLetterRow(
        time,
        letter.reason,
        letter.detail,
        source.topic,
        source.partition,
        source.offset,
        timestamps.normalize(source.timestamp_ms),
        letter.left_out,
        letter.redrives,
        letter.version,
        record.partition,
        record.offset,
    )
    return Change(None, _day(time), [_ENCODER.encode(row)])


def _is_covered(cut: Cut, source: Source) -> bool:
    return cut.covers(source.topic, source.partition, source.offset)


def _check_schema(number: int, known: int) -> None:
    if number > known:
        raise ValueError(f"schema {number}, and this version reads up to {known}")


def _day(time: Timestamp) -> str:
    """The day of a time. Raises ValueError for any other text: it becomes the name of a folder."""
    if timestamps.normalize(time) != time:
        raise ValueError("not a published time")
    return time[:_DAY_LENGTH]
