"""Stream time, and how long a conversation is kept by it. All times are epoch milliseconds; no clock is read."""

from consumer.core.rules import Rules

STREAM_STEP_MAX_MS = 3_600_000
"""A single record moves stream time by at most an hour, so one clock in the future evicts nothing."""


def advance(stream_ms: int | None, snapshot_ms: int) -> int:
    """Stream time after a snapshot: the largest snapshot time of the partition, approached in bounded steps."""
    if stream_ms is None:
        return snapshot_ms
    return max(stream_ms, min(snapshot_ms, stream_ms + STREAM_STEP_MAX_MS))


def is_late(stream_ms: int | None, snapshot_ms: int, rules: Rules) -> bool:
    """Whether a conversation first seen at `snapshot_ms` may have been kept and evicted before."""
    return stream_ms is not None and snapshot_ms < stream_ms - rules.retention_ended_s * 1_000
