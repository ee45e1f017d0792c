"""What the worker reports, as metrics and as log lines: a wide line per interval, and a line per event of a lane.

1. No line holds data of a record: only numbers, partitions and the service's own sentences.
2. A lane that keeps failing is logged once per interval, with how often it failed since. Warnings of all
   lanes together are limited by event, so that no number of failures hides a standstill; `others` counts the lines
   that were left out.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct, field

from consumer.core.reasons import DISPOSITIONS
from consumer.core.record import Record
from consumer.engine.commit_stats import CommitStats
from consumer.telemetry.logs import logger
from consumer.telemetry.metrics import Metrics
from consumer.worker.ports import (
    Activity,
    ExternalError,
    FencedError,
    LaneEnd,
    LaneRestored,
    Rebalance,
    UnreadableError,
)
from consumer.worker.settlement import Verdict
from consumer.worker.standstill import Lag, Standstill

PROGRESS_S: Final = 10.0
"""Least time between two `consumer.progress` lines, and between two logged failures of a lane."""
WINDOW_S: Final = 60.0
"""Least time between two logged failures of a lane with the same error."""
WARNINGS_MAX: Final = 10
"""Lines of all lanes together with the same event in `WINDOW_S`."""

_GROUP_EVENTS: Final[dict[Rebalance, str]] = {"assigned": "group.assigned", "revoked": "group.revoked"}


class _Warnings(Struct):
    """The lines of one event."""

    logged_s: deque[float] = field(default_factory=lambda: deque(maxlen=WARNINGS_MAX))
    """When the last ones were logged."""
    left_out: int = 0
    """How many were not, since the last one that was."""


class _Interval(Struct):
    """Sums over the commits since the last `consumer.progress` line."""

    dispositions: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    transitions: int = 0
    corrections: int = 0
    evicted: int = 0
    slowest_s: float = 0.0
    oldest_ms: int = 0

    def add(self, stats: CommitStats, duration_s: float) -> None:
        """Add a commit."""
        for (disposition, _), count in stats.records.items():
            self.dispositions[disposition] += count
        self.commits += 1
        self.transitions += stats.asserted.total()
        self.corrections += stats.retracted.total()
        self.evicted += stats.evicted
        self.slowest_s = max(self.slowest_s, duration_s)
        self.oldest_ms = max(self.oldest_ms, max(stats.ages_ms, default=0))


class ServiceTelemetry:
    """Implements `worker.ports.Telemetry`."""

    def __init__(
        self,
        metrics: Metrics,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._monotonic_s, self._wall_s = monotonic_s, wall_s
        self._log = logger()
        self._since_s = monotonic_s()
        self._open: set[int] = set()
        """Partitions whose lane has opened and not failed since."""
        self._failures: dict[int, tuple[float, str, int]] = {}
        """By partition: when its last failure was logged, its error, and how many failures were not logged since."""
        self._warnings = defaultdict[str, _Warnings](_Warnings)
        """By event."""
        self._interval = _Interval()

    def committed(self, partition: int, stats: CommitStats, duration_s: float, lag_records: int | None) -> None:
        """See `Telemetry.committed`."""
        self._metrics.committed(partition, stats, duration_s, lag_records, self._wall_s())
        self._interval.add(stats, duration_s)
        self.progress()

    def lagging(self, partition: int, lag: Lag, still_since_s: float | None) -> None:
        """See `Telemetry.lagging`."""
        now_s = self._wall_s()
        since_s = None if still_since_s is None else still_since_s - self._monotonic_s() + now_s
        self._metrics.lagging(partition, lag, now_s, since_s)

    def stands_still(self, partition: int, standstill: Standstill, remedy: str) -> None:
        """See `Telemetry.stands_still`."""
        self._warn(
            "lane.stands_still",
            partition=partition,
            cause=standstill.cause,
            message=standstill.message,
            remedy=remedy,
        )

    def moves_again(self, partition: int) -> None:
        """See `Telemetry.moves_again`."""
        self._log.info("lane.moves_again", partition=partition)

    def input_partitions(self, count: int | None) -> None:
        """Set how many partitions the input topic has; None while that is unknown."""
        if count is not None:
            self._metrics.input_partitions(count)

    def progress(self, *, now: bool = False) -> None:
        """Log the sums of the interval if it has any commit, once it is long enough or at once with `now`."""
        elapsed_s, interval = self._monotonic_s() - self._since_s, self._interval
        if not interval.commits or not (now or elapsed_s >= PROGRESS_S):
            return
        self._log.info(
            "consumer.progress",
            seconds=round(elapsed_s, 1),
            consumed=interval.dispositions.total(),
            **{disposition: interval.dispositions[disposition] for disposition in DISPOSITIONS},
            transitions=interval.transitions,
            corrections=interval.corrections,
            evicted=interval.evicted,
            commits=interval.commits,
            slowest_commit_s=round(interval.slowest_s, 3),
            lag_records=self._metrics.lag_records,
            oldest_age_s=round(interval.oldest_ms / 1_000, 3),
        )
        self._since_s = self._monotonic_s()
        self._interval = _Interval()

    def commit_failed(self, partition: int, error: ExternalError) -> None:
        """See `Telemetry.commit_failed`. Of a lane that is not open, the opening has failed."""
        if partition in self._open:
            self._open.discard(partition)
            self._metrics.commit_failed()
        else:
            self._metrics.opening_failed()
        logged_s, last, repeated = self._failures.get(partition, (float("-inf"), "", 0))
        fenced, now_s = isinstance(error, FencedError), self._monotonic_s()
        if not fenced and now_s - logged_s < (WINDOW_S if str(error) == last else PROGRESS_S):
            self._failures[partition] = (logged_s, last, repeated + 1)
            return
        self._failures[partition] = (now_s, str(error), 0)
        event = "lane.fenced" if fenced else "lane.failed"
        self._warn(event, partition=partition, error=str(error), repeated=repeated)

    def _warn(self, event: str, **fields: Any) -> None:
        """Log a warning of a lane, or count the line as left out."""
        warnings, now_s = self._warnings[event], self._monotonic_s()
        if len(warnings.logged_s) == WARNINGS_MAX and now_s - warnings.logged_s[0] < WINDOW_S:
            warnings.left_out += 1
            return
        warnings.logged_s.append(now_s)
        others, warnings.left_out = warnings.left_out, 0
        self._log.warning(event, **fields, **({"others": others} if others else {}))

    def restored(self, partition: int, restored: LaneRestored) -> None:
        """See `Telemetry.restored`."""
        self._open.add(partition)
        self._metrics.lane_opened(partition, restored.conversations, restored.duration_s)
        self._log.info(
            "lane.opened",
            partition=partition,
            conversations=restored.conversations,
            state_bytes=restored.bytes,
            seconds=round(restored.duration_s, 3),
        )

    def restoring(self, partition: int, remaining: int) -> None:
        """See `Telemetry.restoring`."""
        self._metrics.restoring(partition, remaining)

    def transaction_repaired(self, partition: int, verdict: Verdict, hanging: Sequence[str]) -> None:
        """See `Telemetry.transaction_repaired`."""
        self._metrics.transaction_repaired(verdict)
        self._log.warning(
            "lane.transaction_repaired",
            partition=partition,
            verdict=verdict,
            hanging=list(hanging),
            cause="brokers lost the end of a transaction (KAFKA-20734): look at their version and offline partitions",
        )

    def offset_reset(self, partition: int, wanted: int, at: int) -> None:
        """See `Telemetry.offset_reset`."""
        self._metrics.offset_reset()
        self._log.warning("lane.offset_reset", partition=partition, wanted=wanted, at=at)

    def lane_closed(self, partition: int, reason: LaneEnd) -> None:
        """See `Telemetry.lane_closed`."""
        self._metrics.lane_closed(partition)
        self._open.discard(partition)
        self._failures.pop(partition, None)
        self._log.info("lane.closed", partition=partition, reason=reason)

    def breaker_opened(self, partition: int, cause: str) -> None:
        """See `Telemetry.breaker_opened`."""
        self._metrics.breaker_opened(partition)
        self._log.error(
            "breaker.opened",
            partition=partition,
            cause=cause,
            remedy="nothing is lost: fix what writes the input topic, then restart the worker",
        )

    def unreadable(self, partition: int, error: UnreadableError) -> None:
        """See `Telemetry.unreadable`."""
        self._log.error("lane.batch_too_large", partition=partition, error=str(error))

    def passed_over(self, partition: int, stand_in: Record) -> None:
        """See `Telemetry.passed_over`."""
        self._warn("lane.batch_passed_over", partition=partition, offset=stand_in.offset, cause=stand_in.unread)

    def rebalanced(self, kind: Rebalance, partitions: Sequence[int]) -> None:
        """See `Telemetry.rebalanced`."""
        self._metrics.rebalanced(kind, partitions)
        self._log.info(_GROUP_EVENTS[kind], partitions=list(partitions))

    def spent(self, activity: Activity, seconds: float) -> None:
        """See `Telemetry.spent`."""
        self._metrics.spent(activity, seconds, self._wall_s())
