"""Records that go to a topic once more, by `redrive` and `rekey`: what stays, and what is put right. Pure.

1. Key, value and timestamp stay, so that a repeated record is a duplicate of itself; `rekey` changes the key alone.
2. The header `snapshot-time` says what the core takes for the record's snapshot time. Kafka's timestamp would tell it
   only where the topic keeps timestamps as they are sent, and an EventBridge record has its time inside: a header with
   the timestamp would overrule that one, and the copy would no longer be the same snapshot. So a header that is
   readable keeps its time, and of a record that the core cannot read nothing is claimed: whoever can read it later
   finds the same timestamp, and the time inside.
"""

from typing import Final, Literal, get_args

from msgspec import Struct

from consumer.core.decode import SNAPSHOT_TIME_HEADER, identify
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.runtime.dead_letters import REDRIVES_HEADER, DeadLetter

Headers = tuple[tuple[str, bytes | None], ...]

NO_TIMESTAMP: Final = -1


class Copy(Struct, frozen=True):
    """A record to be written."""

    topic: str
    partition: int | None
    """None for the partition of the key."""
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    """`NO_TIMESTAMP` lets the producer say when."""
    headers: Headers


RekeyOutcome = Literal["rekeyed", "kept", "copied"]
"""Key changed; key right already; copied as it is, for no conversation id can be read."""
REKEY_OUTCOMES: Final[tuple[RekeyOutcome, ...]] = get_args(RekeyOutcome)


class Rekeyed(Struct, frozen=True):
    """A copy, and what became of the key of its original."""

    copy: Copy
    outcome: RekeyOutcome


def redriven(letter: DeadLetter, rules: Rules) -> Copy:
    """The original of a dead letter, for the partition it came from, counting one more attempt."""
    record = letter.original
    attempt = (REDRIVES_HEADER, str(letter.redrives + 1).encode())
    identity = identify(record, rules)
    headers = _stamped(record.headers, None if identity is None else identity.time_ms)
    return Copy(record.topic, record.partition, record.key, record.value, record.timestamp_ms, (*headers, attempt))


def rekeyed(record: Record, topic: str, rules: Rules) -> Rekeyed:
    """A record for another topic, under its conversation id if that can be read.

    One that then has no key is for the partition with the number of its source's, so that its order stays.
    """
    identity = identify(record, rules)
    key = record.key if identity is None else identity.conversation_id.encode()
    outcome: RekeyOutcome = "copied" if identity is None else "kept" if key == record.key else "rekeyed"
    headers = _stamped(record.headers, None if identity is None else identity.time_ms)
    partition = record.partition if key is None else None
    return Rekeyed(Copy(topic, partition, key, record.value, record.timestamp_ms, headers), outcome)


def _stamped(headers: Headers, time_ms: int | None) -> Headers:
    """Headers that say this snapshot time and no other; as they are where it is not known."""
    if time_ms is None:
        return headers
    others = tuple(header for header in headers if header[0] != SNAPSHOT_TIME_HEADER)
    return (*others, (SNAPSHOT_TIME_HEADER, str(time_ms).encode()))
