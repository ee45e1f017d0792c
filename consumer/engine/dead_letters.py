"""The form of a dead letter: the original bytes, and headers with the reason and the origin. No header holds a value.

Of the original's headers a dead letter carries the two that this service uses, and only if they are digits: others may
hold personal data.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from consumer.core.envelope import DIGITS_MAX, SNAPSHOT_TIME_HEADER
from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.engine.output import Output
from schemas.dead_letter import HEADER_PREFIX, DeadLetterHeaders

REASON_HEADER: Final = "cc-reason"
REDRIVES_HEADER: Final = "cc-redrives"
"""Header of a record that was a dead letter: how often it was put back into the input, in digits."""
MARKER_HEADER: Final = "cc-redriven"
"""Header of a marker: how many dead letters it names."""

_NUMBER_DIGITS_MAX: Final = 19  # those of the largest offset
_REQUIRED: Final = ("reason", "source-topic", "source-partition", "source-offset", "source-timestamp-ms")


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


class DeadLetterFormat(Struct, frozen=True):
    """What dead letters carry."""

    keep_payload: bool
    """Whether they carry key and value of the original."""
    payload_bytes_max: int
    """The largest key and value that they carry."""
    version: str
    """The version of the service."""


def build(record: Record, outcome: DeadLettered, form: DeadLetterFormat) -> Output:
    """Build the dead letter of a record.

    Without `keep_payload`, or where key and value are larger than `payload_bytes_max` or were not read, they are left
    out, and the header `cc-payload` says so: the original is still at its source offset as long as the input topic
    keeps it.
    """
    left_out = _left_out(record, form)
    fields = DeadLetterHeaders(
        reason=outcome.reason,
        detail=outcome.detail,
        source_topic=record.topic,
        source_partition=str(record.partition),
        source_offset=str(record.offset),
        source_timestamp_ms=str(record.timestamp_ms),
        service_version=form.version,
        payload=left_out,
        source_snapshot_time=_digits(record, SNAPSHOT_TIME_HEADER),
        redrives=_digits(record, REDRIVES_HEADER),
    )
    headers = [(name, text.encode()) for name, text in msgspec.to_builtins(fields).items()]
    if left_out is UNSET:
        return Output(record.key, record.value, headers)
    return Output(None, b"", headers)


def parse(record: Record) -> DeadLetter | None:
    """Read a record of the dead letters topic; None for one that is no dead letter of this service."""
    fields = {
        name.removeprefix(HEADER_PREFIX): text.decode("utf-8", "replace")
        for name, text in record.headers
        if name.startswith(HEADER_PREFIX) and text is not None
    }
    if not all(name in fields for name in _REQUIRED):
        return None
    partition, offset = _number(fields, "source-partition"), _number(fields, "source-offset")
    timestamp_ms = _number(fields, "source-timestamp-ms", least=-1)
    if partition is None or offset is None or timestamp_ms is None:
        return None
    left_out = fields.get("payload", "")
    key, value = (None, None) if left_out else (record.key, record.value)
    stamped = fields.get("source-snapshot-time")
    headers = () if stamped is None else ((SNAPSHOT_TIME_HEADER, stamped.encode()),)
    return DeadLetter(
        record.partition,
        record.offset,
        record.timestamp_ms,
        fields["reason"],
        fields.get("detail", ""),
        fields.get("service-version", ""),
        left_out,
        _number(fields, "redrives") or 0,
        Record(fields["source-topic"], partition, offset, timestamp_ms, key, value, headers),
    )


def _left_out(record: Record, form: DeadLetterFormat) -> str | UnsetType:
    """Why key and value are left out, if they are."""
    size = len(record.key or b"") + len(record.value or b"")
    if record.unread:
        return "not read"
    if not form.keep_payload:
        return "dropped"
    return UNSET if size <= form.payload_bytes_max else f"{size} bytes left out"


def _digits(record: Record, name: str) -> str | UnsetType:
    """The first header of a record under a name that is digits, if there is one."""
    for header, value in record.headers:
        if header == name and value is not None and value.isdigit() and len(value) <= DIGITS_MAX:
            return value.decode()
    return UNSET


def _number(fields: Mapping[str, str], name: str, least: int = 0) -> int | None:
    text = fields.get(name, "")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _NUMBER_DIGITS_MAX:
        return None
    return int(text) if int(text) >= least else None


def is_marker(record: Record) -> bool:
    """Whether a record of the dead letters topic is the marker of a redrive and no dead letter."""
    return any(name == MARKER_HEADER for name, _ in record.headers)
