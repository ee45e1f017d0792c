"""The gauges that are not kept but read at scrape time, from the states of the lanes."""

from collections import Counter as Counts
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.adapters.monitoring.labels import MEDIA, OTHER, PREFIX, STATES
from consumer.core import times
from consumer.runtime.census import Census

PartitionSize = Callable[[], tuple[int, int]]
"""Conversations and bytes of state of a lane."""


class Reach(Struct):
    """How far a lane has come in its partition."""

    known_s: float
    """When the lane was seen first; what it lacks may be older."""
    lag_records: int | None = None
    is_lag_known: bool = True
    """Whether the leader of the partition has said where it ends when it was asked last."""
    position_s: float | None = None
    """The timestamp of the last record committed."""
    at_end_s: float | None = None
    """When it was at the end of the partition last: what is older has been read."""
    still_since_s: float | None = None
    """When it moved last, if it stands still."""

    def note_lag(self, lag_records: int, now_s: float) -> None:
        """The leader has said where the partition ends."""
        self.lag_records, self.is_lag_known = lag_records, True
        if not lag_records:
            self.at_end_s = now_s

    def lag_s(self, now_s: float) -> float | None:
        """How far it may be behind in time; None if nothing is known of that."""
        if self.is_lag_known and not self.lag_records:
            return None if self.lag_records is None else 0.0
        reached_s = max(self.position_s or 0.0, self.at_end_s or 0.0) or self.known_s
        return max(0.0, now_s - reached_s)


class LaneGauges(Collector):
    """What is read from the lanes at scrape time: sums over their states, and how far behind they are by now."""

    families: Final = (
        (f"{PREFIX}communications", "gauge", "media, state", "Communications known, by the state they are in."),
        (
            f"{PREFIX}oldest_live_timestamp_seconds", "gauge", "media",
            "When the oldest communication that has not ended began.",
        ),
        (f"{PREFIX}state_conversations", "gauge", "partition", "Conversations in memory."),
        (f"{PREFIX}state_bytes", "gauge", "partition", "Bytes of conversation state in memory."),
        (
            f"{PREFIX}lag_seconds", "gauge", "partition",
            "How old the newest of what is committed is, at most, while there is or may be lag, else 0.",
        ),
        (
            f"{PREFIX}standstill_seconds", "gauge", "partition",
            "Time since the partition moved last while it stands still though its log grows or may grow, else 0.",
        ),
    )  # fmt: skip

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float]) -> None:
        self.watched: dict[int, tuple[Census, PartitionSize]] = {}
        self._reached: dict[int, Reach] = {}
        self._now_s = now_s
        registry.register(self)

    def reach(self, partition: int) -> "Reach":
        """How far a lane is, to be kept up to date."""
        return self._reached.setdefault(partition, Reach(self._now_s()))

    def forget(self, partition: int) -> None:
        """Remove the series of a partition."""
        self.watched.pop(partition, None)
        self._reached.pop(partition, None)

    @property
    def lag_records(self) -> int:
        """Of all lanes together, as known last."""
        return sum(reach.lag_records or 0 for reach in self._reached.values())

    def describe(self) -> Iterator[Metric]:
        """The families without their series, by which the registry knows the names taken."""
        yield from self._empty()

    def collect(self) -> Iterator[Metric]:
        """The series as of now."""
        communications, oldest, conversations, state_bytes, lag_s, standstill = self._empty()
        states: Counts[tuple[str, str]] = Counts(dict.fromkeys(product(MEDIA, (*STATES, OTHER)), 0))
        since: dict[str, str] = {}
        for partition, (census, size) in self.watched.items():
            for (media, state), count in census.states.items():
                states[media if media in MEDIA else OTHER, state if state in STATES else OTHER] += count
            for media, first in census.oldest_live().items():
                since[media] = min(first, since.get(media, first))
            count, held_bytes = size()
            conversations.add_metric([str(partition)], count)
            state_bytes.add_metric([str(partition)], held_bytes)
        for (media, state), count in states.items():
            communications.add_metric([media, state], count)
        for media, first in since.items():
            oldest.add_metric([media], times.milliseconds(first) / 1_000)
        now_s = self._now_s()
        for partition, reach in self._reached.items():
            seconds = reach.lag_s(now_s)
            if seconds is not None:
                lag_s.add_metric([str(partition)], seconds)
            still_since_s = now_s if reach.still_since_s is None else reach.still_since_s
            standstill.add_metric([str(partition)], max(0.0, now_s - still_since_s))
        yield from (communications, oldest, conversations, state_bytes, lag_s, standstill)

    def _empty(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(name, documentation, labels=labels.split(", "))
            for name, _, labels, documentation in self.families
        ]
