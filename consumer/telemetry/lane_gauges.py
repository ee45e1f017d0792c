"""Gauges that a scrape reads from the lanes: nothing updates them in between."""

from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.core import timestamps
from consumer.engine.protocol import States
from consumer.telemetry.labels import MEDIA, OTHER, PREFIX, STATES
from consumer.worker.state_memory import StateMemory

ReadStates = Callable[[], Mapping[int, States]]
"""The states of the lanes that have opened, by partition."""

ReadMemory = Callable[[], StateMemory]

ReadGeneration = Callable[[], int]
"""The generation of the group that this worker is a member of; below 0 if it is in none."""


class Reach(Struct):
    """How far a lane has read its partition. All times are of the wall clock, in seconds."""

    known_s: float
    """When the lane was first seen; the records that it has to read may be older."""
    lag_records: int | None = None
    is_lag_known: bool = True
    """Whether the partition's leader answered when it was last asked for the end."""
    position_s: float | None = None
    """The timestamp of the last committed record."""
    at_end_s: float | None = None
    """When the lane was last at the end of the partition: all older records are read."""
    still_since_s: float | None = None
    """When the partition last moved, if it stands still."""

    def note_lag(self, lag_records: int, now_s: float) -> None:
        """Note the lag that follows from the end, as the leader gave it."""
        self.lag_records, self.is_lag_known = lag_records, True
        if not lag_records:
            self.at_end_s = now_s

    def lag_s(self, now_s: float) -> float | None:
        """How far the lane may be behind in time; None while its lag is unknown."""
        if self.is_lag_known and not self.lag_records:
            return None if self.lag_records is None else 0.0
        reached_s = max(self.position_s or 0.0, self.at_end_s or 0.0) or self.known_s
        return max(0.0, now_s - reached_s)


class LaneGauges(Collector):
    """Sums over the lanes' states, and how far behind the lanes are, as of the scrape."""

    families: Final = (
        (
            f"{PREFIX}communications", "gauge", "partition, media, state",
            "Known communications by medium and state; no series where there are none.",
        ),
        (
            f"{PREFIX}partition_generation", "gauge", "partition",
            "Generation of the group in which this worker has the open partition; below 0 while it is no member.",
        ),
        (
            f"{PREFIX}oldest_live_timestamp_seconds", "gauge", "media",
            "When the oldest communication that has not ended began, in seconds since the epoch.",
        ),
        (f"{PREFIX}state_conversations", "gauge", "partition", "Conversations in memory."),
        (f"{PREFIX}state_bytes", "gauge", "partition", "Bytes of conversation state in memory."),
        (
            f"{PREFIX}state_memory_bytes", "gauge", "",
            "Memory that all states take, those that are being restored or kept included.",
        ),
        (f"{PREFIX}state_memory_max_bytes", "gauge", "", "Memory at which the lanes stop, 0 without a limit."),
        (
            f"{PREFIX}lag_seconds", "gauge", "partition",
            "Upper bound of how long the oldest uncommitted record has waited, 0 without lag.",
        ),
        (
            f"{PREFIX}standstill_seconds", "gauge", "partition",
            "Time since the partition last moved, if it stands still while records wait or may wait, else 0.",
        ),
    )  # fmt: skip

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float]) -> None:
        self._reached: dict[int, Reach] = {}
        self._now_s = now_s
        self.watch(dict)
        registry.register(self)

    def watch(
        self,
        read_states: ReadStates,
        read_memory: ReadMemory = lambda: StateMemory(0, 0),
        read_generation: ReadGeneration = lambda: -1,
    ) -> None:
        """Read the states of the lanes, what they take, and the generation in which they are open, at each scrape."""
        self._read_states, self._read_memory, self._read_generation = read_states, read_memory, read_generation

    def reach(self, partition: int) -> Reach:
        """The reach of a lane, for the caller to update."""
        return self._reached.setdefault(partition, Reach(self._now_s()))

    def partitions(self) -> set[int]:
        """The partitions that have series."""
        return set(self._reached)

    def forget(self, partition: int) -> None:
        """Remove the series of a partition."""
        self._reached.pop(partition, None)

    @property
    def lag_records(self) -> int:
        """The lag of all lanes together, as last known."""
        return sum(reach.lag_records or 0 for reach in self._reached.values())

    def describe(self) -> Iterator[Metric]:
        """The families without series: the registry checks that their names are free."""
        yield from self._empty()

    def collect(self) -> Iterator[Metric]:
        """The families with their current series."""
        communications, generations, oldest, conversations, state_bytes, *others = self._empty()
        memory, memory_max, lag_s, standstill = others
        since: dict[str, str] = {}
        generation = self._read_generation()
        for partition, held in self._read_states().items():
            label = str(partition)
            for (media, state), count in _fold(held.live_index.states).items():
                communications.add_metric([label, media, state], count)
            for media, first in held.live_index.oldest_live().items():
                since[media] = min(first, since.get(media, first))
            generations.add_metric([label], generation)
            conversations.add_metric([label], len(held))
            state_bytes.add_metric([label], held.committed_bytes)
        for media, first in since.items():
            oldest.add_metric([media], timestamps.to_ms(first) / 1_000)
        taken = self._read_memory()
        memory.add_metric([], taken.bytes)
        memory_max.add_metric([], taken.bytes_max)
        now_s = self._now_s()
        for partition, reach in self._reached.items():
            seconds = reach.lag_s(now_s)
            if seconds is not None:
                lag_s.add_metric([str(partition)], seconds)
            still_since_s = now_s if reach.still_since_s is None else reach.still_since_s
            standstill.add_metric([str(partition)], max(0.0, now_s - still_since_s))
        yield from (communications, generations, oldest, conversations, state_bytes, *others)

    def _empty(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(name, documentation, labels=labels.split(", ") if labels else [])
            for name, _, labels, documentation in self.families
        ]


def _fold(states: Mapping[tuple[str, str], int]) -> Counts[tuple[str, str]]:
    """Communications by (media, state), each from its closed set."""
    folded: Counts[tuple[str, str]] = Counts()
    for (media, state), count in states.items():
        folded[media if media in MEDIA else OTHER, state if state in STATES else OTHER] += count
    return folded
