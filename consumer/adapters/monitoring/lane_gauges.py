"""The gauges that are not kept but read at scrape time, from the states of the lanes."""

from collections import Counter as Counts
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.adapters.monitoring.labels import MEDIA, OTHER, PREFIX, STATES
from consumer.core import times
from consumer.runtime.census import Census

PartitionSize = Callable[[], tuple[int, int]]
"""Conversations and bytes of state of a lane."""


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
            "Time since the timestamp of the last record committed while there is lag, else 0.",
        ),
    )  # fmt: skip

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float]) -> None:
        self.watched: dict[int, tuple[Census, PartitionSize]] = {}
        self.lag_records: dict[int, int] = {}
        self.position_s: dict[int, float] = {}
        """Timestamp of the last record committed."""
        self._now_s = now_s
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The families without their series, by which the registry knows the names taken."""
        yield from self._empty()

    def collect(self) -> Iterator[Metric]:
        """The series as of now."""
        communications, oldest, conversations, state_bytes, lag_s = self._empty()
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
        for partition, lag_records in self.lag_records.items():
            if not lag_records:
                lag_s.add_metric([str(partition)], 0)
            elif partition in self.position_s:
                lag_s.add_metric([str(partition)], max(0.0, self._now_s() - self.position_s[partition]))
        yield from (communications, oldest, conversations, state_bytes, lag_s)

    def _empty(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(name, documentation, labels=labels.split(", "))
            for name, _, labels, documentation in self.families
        ]
