"""What the runtime tells, as metrics and as log lines: one wide line per interval, and one per life event.

1. No line holds anything of a record: numbers, partitions, and the runtime's own sentences only.
2. A lane that fails over and over is logged once per interval, with how often it failed since. All lanes together have
   a limited number of lines about what holds them up; `others` counts the lines that were left out.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct, field

from consumer.adapters.logs import logger
from consumer.adapters.monitoring.metrics import Metrics
from consumer.core.step import DISPOSITIONS
from consumer.runtime.ports import Activity, Fenced, Rebalance, WorldError
from consumer.runtime.settlement import Verdict
from consumer.runtime.standstill import Lag, Standstill
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally

PROGRESS_S: Final = 10.0
"""Least time between two `consumer.progress` lines, and between two failures of one lane."""
TROUBLE_S: Final = 60.0
"""Least time between two failures of one lane that say the same."""
TROUBLES_MAX: Final = 10
"""Lines in that time about what holds lanes up."""

_GROUP_EVENTS: Final[dict[Rebalance, str]] = {"assigned": "group.assigned", "revoked": "group.revoked"}


class _Interval(Struct):
    """What was committed since the last `consumer.progress` line."""

    dispositions: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    transitions: int = 0
    corrections: int = 0
    evicted: int = 0
    slowest_s: float = 0.0
    oldest_ms: int = 0

    def add(self, tally: Tally, duration_s: float) -> None:
        """Take in a commit."""
        for (disposition, _), count in tally.records.items():
            self.dispositions[disposition] += count
        self.commits += 1
        self.transitions += tally.asserted.total()
        self.corrections += tally.retracted.total()
        self.evicted += tally.evicted
        self.slowest_s = max(self.slowest_s, duration_s)
        self.oldest_ms = max(self.oldest_ms, max(tally.ages_ms, default=0))


class ServiceTelemetry:
    """Implements `runtime.ports.Telemetry`."""

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
        """By partition: when its last failure was logged, what it was, and how many were not since."""
        self._troubles: deque[float] = deque(maxlen=TROUBLES_MAX)
        """When the last lines about what holds lanes up were logged."""
        self._left_out = 0
        self._done = _Interval()

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None) -> None:
        """See `Telemetry.committed`."""
        self._metrics.committed(partition, tally, duration_s, lag_records, self._wall_s())
        self._done.add(tally, duration_s)
        self.progress()

    def lagging(self, partition: int, lag: Lag) -> None:
        """See `Telemetry.lagging`."""
        self._metrics.lagging(partition, lag, self._wall_s())

    def stands_still(self, partition: int, standstill: Standstill, todo: str) -> None:
        """See `Telemetry.stands_still`."""
        self._metrics.stands_still(partition, standstill.since_s - self._monotonic_s() + self._wall_s())
        self._trouble(
            "lane.stands_still", partition=partition, cause=standstill.cause, found=standstill.found, todo=todo
        )

    def moves_again(self, partition: int) -> None:
        """See `Telemetry.moves_again`."""
        self._metrics.moves_again(partition)
        self._log.info("lane.moves_again", partition=partition)

    def input_partitions(self, count: int | None) -> None:
        """The input topic has so many partitions, of this worker or not; None if it is not known yet."""
        if count is not None:
            self._metrics.input_partitions(count)

    def progress(self, *, now: bool = False) -> None:
        """Log what was done since the last time, if enough time has passed (or `now`) and anything was done."""
        elapsed_s, done = self._monotonic_s() - self._since_s, self._done
        if not done.commits or not (now or elapsed_s >= PROGRESS_S):
            return
        self._log.info(
            "consumer.progress",
            seconds=round(elapsed_s, 1),
            consumed=done.dispositions.total(),
            **{disposition: done.dispositions[disposition] for disposition in DISPOSITIONS},
            transitions=done.transitions,
            corrections=done.corrections,
            evicted=done.evicted,
            commits=done.commits,
            slowest_commit_s=round(done.slowest_s, 3),
            lag_records=self._metrics.lag_records,
            oldest_age_s=round(done.oldest_ms / 1_000, 3),
        )
        self._since_s = self._monotonic_s()
        self._done = _Interval()

    def commit_failed(self, partition: int, error: WorldError) -> None:
        """See `Telemetry.commit_failed`. A lane that is not open has failed to open."""
        if partition in self._open:
            self._open.discard(partition)
            self._metrics.commit_failed()
        else:
            self._metrics.opening_failed()
        logged_s, last, repeated = self._failures.get(partition, (float("-inf"), "", 0))
        fenced, now_s = isinstance(error, Fenced), self._monotonic_s()
        if not fenced and now_s - logged_s < (TROUBLE_S if str(error) == last else PROGRESS_S):
            self._failures[partition] = (logged_s, last, repeated + 1)
            return
        self._failures[partition] = (now_s, str(error), 0)
        event = "lane.fenced" if fenced else "lane.failed"
        self._trouble(event, partition=partition, error=str(error), repeated=repeated)

    def _trouble(self, event: str, **fields: Any) -> None:
        """Log what holds a lane up, or count it as left out."""
        now_s = self._monotonic_s()
        if len(self._troubles) == TROUBLES_MAX and now_s - self._troubles[0] < TROUBLE_S:
            self._left_out += 1
            return
        self._troubles.append(now_s)
        others, self._left_out = self._left_out, 0
        self._log.warning(event, **fields, **({"others": others} if others else {}))

    def restored(self, partition: int, store: StateStore, duration_s: float) -> None:
        """See `Telemetry.restored`."""
        self._open.add(partition)
        self._metrics.lane_opened(partition, len(store), duration_s)
        self._metrics.watch(partition, store.census, lambda: (len(store), store.committed_bytes))
        self._log.info(
            "lane.opened",
            partition=partition,
            conversations=len(store),
            state_bytes=store.committed_bytes,
            seconds=round(duration_s, 3),
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

    def lane_closed(self, partition: int, reason: str) -> None:
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
            todo="nothing is lost: mend what writes the input topic, then restart the worker to go on",
        )

    def rebalanced(self, kind: Rebalance, partitions: Sequence[int]) -> None:
        """See `Telemetry.rebalanced`."""
        self._metrics.rebalanced(kind, partitions)
        self._log.info(_GROUP_EVENTS[kind], partitions=list(partitions))

    def spent(self, activity: Activity, seconds: float) -> None:
        """See `Telemetry.spent`."""
        self._metrics.spent(activity, seconds, self._wall_s())
