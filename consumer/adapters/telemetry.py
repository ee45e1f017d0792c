"""What the runtime tells, as metrics and as log lines: one wide line per interval, and one per life event."""

import time
from collections import Counter
from collections.abc import Sequence

import structlog

from consumer.adapters.metrics import Metrics
from consumer.runtime.ports import Fenced, WorldError
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally

PROGRESS_S = 10.0
"""Time between two `consumer.progress` lines."""


class ServiceTelemetry:
    """Implements `runtime.ports.Telemetry`."""

    _slowest_s: float

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._since_s = time.monotonic()
        self._lag: dict[int, int] = {}
        self._clear()

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None) -> None:
        """See `Telemetry.committed`."""
        self._metrics.committed(partition, tally, duration_s, lag_records, time.time())
        for (disposition, _), count in tally.records.items():
            self._dispositions[disposition] += count
        self._commits += 1
        self._transitions += tally.asserted.total()
        self._corrections += tally.retracted.total()
        self._slowest_s = max(self._slowest_s, duration_s)
        if lag_records is not None:
            self._lag[partition] = lag_records
        self.progress()

    def progress(self, *, now: bool = False) -> None:
        """Log what was done since the last time, if enough time has passed (or `now`) and anything was done."""
        elapsed_s = time.monotonic() - self._since_s
        if not self._commits or not (now or elapsed_s >= PROGRESS_S):
            return
        self._log.info(
            "consumer.progress",
            seconds=round(elapsed_s, 1),
            consumed=self._dispositions.total(),
            **self._dispositions,
            transitions=self._transitions,
            corrections=self._corrections,
            commits=self._commits,
            slowest_commit_s=round(self._slowest_s, 3),
            lag_records=sum(self._lag.values()),
        )
        self._since_s = time.monotonic()
        self._clear()

    def commit_failed(self, partition: int, error: WorldError) -> None:
        """See `Telemetry.commit_failed`."""
        self._metrics.commit_failed()
        event = "lane.fenced" if isinstance(error, Fenced) else "lane.failed"
        self._log.warning(event, partition=partition, error=str(error))

    def restored(self, partition: int, store: StateStore, duration_s: float) -> None:
        """See `Telemetry.restored`."""
        self._metrics.lane_opened(partition, duration_s)
        self._metrics.watch(partition, store.census, lambda: (len(store), store.committed_bytes))
        self._log.info(
            "lane.opened",
            partition=partition,
            conversations=len(store),
            state_bytes=store.committed_bytes,
            seconds=round(duration_s, 3),
        )

    def restoring(self, partition: int, read: int, remaining: int) -> None:
        """See `Telemetry.restoring`."""
        self._metrics.restoring(partition, remaining)

    def lane_closed(self, partition: int, reason: str) -> None:
        """See `Telemetry.lane_closed`."""
        self._metrics.lane_closed(partition)
        self._lag.pop(partition, None)
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

    def rebalanced(self, kind: str, partitions: Sequence[int]) -> None:
        """See `Telemetry.rebalanced`."""
        self._metrics.rebalanced(kind)
        self._log.info(f"group.{kind}", partitions=list(partitions))

    def spent(self, activity: str, seconds: float) -> None:
        """See `Telemetry.spent`."""
        self._metrics.spent(activity, seconds, time.time())

    def _clear(self) -> None:
        self._dispositions: Counter[str] = Counter()
        self._commits = self._transitions = self._corrections = 0
        self._slowest_s = 0.0
