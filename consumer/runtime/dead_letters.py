"""What a dead letter looks like: the original bytes, and in headers why and where from. No header holds a value.

Of the original's headers a dead letter carries the two that mean something to this service, and only if they are
digits: others may hold anything.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from consumer.core.decode import DIGITS_MAX, SNAPSHOT_TIME_HEADER
from consumer.core.record import Record
from consumer.core.step import Outcome
from consumer.runtime.ports import Output

_PREFIX: Final = "cc-"
REASON_HEADER: Final = "cc-reason"
REDRIVES_HEADER: Final = "cc-redrives"
"""Header of a record that was a dead letter: how often it was put back into the input, in digits."""

_CARRIED: Final = {SNAPSHOT_TIME_HEADER: "source-snapshot-time", REDRIVES_HEADER: "redrives"}
_NUMBER_DIGITS_MAX: Final = 19  # those of the largest offset
_WHENCE: Final = ("reason", "source-topic", "source-partition", "source-offset", "source-timestamp-ms")


class DeadLetter(Struct, frozen=True):
    """A dead letter that was read."""

    partition: int
    offset: int
    time_ms: int
    """When it became one, in epoch milliseconds."""
    reason: str
    detail: str
    version: str
    """The version of the service that could not use it."""
    left_out: str
    """Why it carries no key and value, empty if it does."""
    redrives: int
    """How often it had been put back into the input before."""
    original: Record
    """The record; without key and value if those were left out, and with no header but `snapshot-time`."""


def dead_letter(
    record: Record, outcome: Outcome, *, keep_payload: bool, payload_bytes_max: int, version: str
) -> Output:
    """The dead letter of a record.

    Without `keep_payload`, or where key and value are larger than `payload_bytes_max`, they are left out, and the
    header `cc-payload` says so: the original is still at its source offset as long as the input topic keeps it.
    """
    size = len(record.key or b"") + len(record.value or b"")
    fits = size <= payload_bytes_max
    told = {
        "reason": outcome.reason,
        "detail": outcome.detail,
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
        "source-timestamp-ms": str(record.timestamp_ms),
        "service-version": version,
    }
    if not keep_payload:
        told["payload"] = "dropped"
    elif not fits:
        told["payload"] = f"{size} bytes left out"
    for name, digits in record.headers:
        if name in _CARRIED and digits is not None and digits.isdigit() and len(digits) <= DIGITS_MAX:
            told.setdefault(_CARRIED[name], digits.decode())
    headers = [(_PREFIX + name, text.encode()) for name, text in told.items()]
    if not (keep_payload and fits):
        return Output(None, b"", headers)
    return Output(record.key, record.value, headers)


def opened(record: Record) -> DeadLetter | None:
    """A record of the dead letters topic as what it is; None for one that is no dead letter of this service."""
    told = {
        name.removeprefix(_PREFIX): text.decode("utf-8", "replace")
        for name, text in record.headers
        if name.startswith(_PREFIX) and text is not None
    }
    if not all(name in told for name in _WHENCE):
        return None
    partition, offset = _number(told, "source-partition"), _number(told, "source-offset")
    timestamp_ms = _number(told, "source-timestamp-ms", least=-1)
    if partition is None or offset is None or timestamp_ms is None:
        return None
    left_out = told.get("payload", "")
    key, value = (None, None) if left_out else (record.key, record.value)
    stamped = told.get("source-snapshot-time")
    headers = () if stamped is None else ((SNAPSHOT_TIME_HEADER, stamped.encode()),)
    return DeadLetter(
        record.partition,
        record.offset,
        record.timestamp_ms,
        told["reason"],
        told.get("detail", ""),
        told.get("service-version", ""),
        left_out,
        _number(told, "redrives") or 0,
        Record(told["source-topic"], partition, offset, timestamp_ms, key, value, headers),
    )


def _number(told: Mapping[str, str], name: str, least: int = 0) -> int | None:
    text = told.get(name, "")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _NUMBER_DIGITS_MAX:
        return None
    return int(text) if int(text) >= least else None
