"""What a dead letter looks like: the original bytes, and in headers why and where from. No header holds a value."""

from consumer.core.record import Record
from consumer.core.step import Outcome
from consumer.runtime.ports import Letter

HEADER_PREFIX = "cc-"


def dead_letter(
    record: Record, outcome: Outcome, *, keep_payload: bool, payload_bytes_max: int, version: str
) -> Letter:
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
    headers = [(HEADER_PREFIX + name, text.encode()) for name, text in told.items()]
    if not (keep_payload and fits):
        return Letter(None, b"", headers)
    return Letter(record.key, record.value, headers)
