"""The records that `redrive` and `rekey` write again: what stays as it was and what changes. Pure.

1. Value and timestamp stay, and a redrive keeps the key too, so that a record that is written twice is its own
   duplicate. `rekey` changes nothing but the key.
2. The header `snapshot-time` carries the snapshot time that the core reads from the record. The Kafka timestamp alone
   does not preserve it: a topic with LogAppendTime replaces the timestamp, and the time of an EventBridge record is in
   its value. A header with the Kafka timestamp would take precedence over that time and make the copy another snapshot.
3. A record that the core cannot read gets no such header. A later version that can read it finds what this one found:
   the same timestamp and the same value.
"""

from typing import Final, Literal, get_args

from msgspec import Struct

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Identity, identify
from consumer.engine.dead_letters import REDRIVES_HEADER, DeadLetter
from consumer.engine.output import Output

Headers = tuple[tuple[str, bytes | None], ...]

_NO_TIMESTAMP: Final = -1
"""Of a `Record` without a timestamp."""

RekeyOutcome = Literal["rekeyed", "kept", "copied"]
"""The key was replaced; it was right already; the record has no readable conversation id and keeps the key it has."""
REKEY_OUTCOMES: Final[tuple[RekeyOutcome, ...]] = get_args(RekeyOutcome)


class RekeyedRecord(Struct, frozen=True):
    """The record to write, and what happened to its key."""

    output: Output
    outcome: RekeyOutcome


def redrive(letter: DeadLetter, rules: Rules) -> Output:
    """The original of a dead letter, for the partition it came from, with one more attempt counted in its headers."""
    record = letter.original
    attempt = (REDRIVES_HEADER, str(letter.redrives + 1).encode())
    headers = (*_stamp(record.headers, identify(record, rules)), attempt)
    return _write_again(record, record.topic, record.partition, record.key, headers)


def rekey_record(record: Record, topic: str, rules: Rules) -> RekeyedRecord:
    """A record for another topic, keyed by its conversation id if that can be read.

    A record without any key goes to the partition with its source's number, so that such records keep their order.
    """
    identity = identify(record, rules)
    key = record.key if identity is None else identity.conversation_id.encode()
    outcome: RekeyOutcome = "copied" if identity is None else "kept" if key == record.key else "rekeyed"
    partition = record.partition if key is None else None
    return RekeyedRecord(_write_again(record, topic, partition, key, _stamp(record.headers, identity)), outcome)


def _write_again(record: Record, topic: str, partition: int | None, key: bytes | None, headers: Headers) -> Output:
    timestamp_ms = None if record.timestamp_ms == _NO_TIMESTAMP else record.timestamp_ms
    return Output(key, record.value, headers, topic, partition, timestamp_ms)


def _stamp(headers: Headers, identity: Identity | None) -> Headers:
    """Headers that state the snapshot time once; unchanged where it is not known."""
    if identity is None or identity.time_ms is None:
        return headers
    others = tuple(header for header in headers if header[0] != SNAPSHOT_TIME_HEADER)
    return (*others, (SNAPSHOT_TIME_HEADER, str(identity.time_ms).encode()))
