"""Every metric of the service, declared once. Two families: the contact centre and the pipeline.

1. Label values come from closed sets; anything else is shown as `other`. Series of closed sets start at 0.
2. Counters move once per commit, after it succeeded: consumed = applied + unchanged + ignored + dead_lettered.
3. Series of a partition are removed when its lane closes.
"""

import platform
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.adapters.histogram import BulkHistogram
from consumer.core import times
from consumer.core.lifecycle import DISCONNECT_TYPES, RANKS
from consumer.core.step import DEAD_LETTER_REASONS, IGNORED_REASONS, NOTES
from consumer.core.topics import TEMPLATES
from consumer.runtime.census import Census
from consumer.runtime.ports import ACTIVITIES
from consumer.runtime.tally import Tally
from consumer.version import VERSION
from schemas.state import Media, TimeClass

MEDIA: Final[tuple[str, ...]] = get_args(Media)
OTHER: Final = "other"

_LATENCY_S: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800)
_DURATION_S: Final = (5, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 86_400)
_AGE_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
_COMMIT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_LOOP_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

PartitionSize = Callable[[], tuple[int, int]]
"""Conversations and bytes of state of a lane."""


class Metrics:
    """The registry and everything in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._partitions = _Partitions(self.registry)
        self._contact_centre()
        self._pipeline()

    def _contact_centre(self) -> None:
        self._transitions = self._counter("transitions", "Transitions asserted", "media", "from", "to")
        self._corrections = self._counter(
            "corrections", "Transitions retracted because an older observation arrived later", "media", media=True
        )
        self._time_sources = self._counter(
            "time_sources", "Transitions asserted, by where their time is from", "media", "time_class"
        )
        self._initialise(self._time_sources, ((media, each) for media in MEDIA for each in get_args(TimeClass)))
        self._disconnects = self._counter("disconnects", "Communications that ended", "media", "disconnect_type")
        self._connect = BulkHistogram(
            "conversation_connect_seconds", "Time from the first state to the first live one", _LATENCY_S,
            self.registry, "media",
        )  # fmt: skip
        self._duration = BulkHistogram(
            "conversation_duration_seconds", "Time from the first live state to the end", _DURATION_S,
            self.registry, "media",
        )  # fmt: skip
        self._connect.initialise(MEDIA)
        self._duration.initialise(MEDIA)

    def _pipeline(self) -> None:
        self._records = self._counter("records", "Records consumed, by what became of them", "disposition", "reason")
        self._initialise(self._records, (("applied", ""), ("unchanged", "")))
        self._initialise(self._records, (("ignored", reason) for reason in IGNORED_REASONS))
        self._initialise(self._records, (("dead_lettered", reason) for reason in DEAD_LETTER_REASONS))
        self._topics = self._counter("topic_records", "Records consumed, by notification topic", "topic")
        self._initialise(self._topics, ((template,) for template in TEMPLATES))
        self._oddities = self._counter("oddities", "Things noticed in records that were used all the same", "kind")
        self._initialise(self._oddities, ((note,) for note in NOTES))
        self._bytes = self._counter("record_bytes", "Bytes of record values consumed")
        self._evicted = self._counter("evicted", "Conversations evicted after their retention")
        self._commits = self._counter("commits", "Commits of lanes", "result")
        self._initialise(self._commits, (("success",), ("failure",)))
        self._rebalances = self._counter("rebalances", "Decisions of the consumer group", "kind")
        self._initialise(self._rebalances, (("assigned",), ("revoked",)))
        self._loop = self._counter("loop_seconds", "Time of lanes by what it was spent on", "activity")
        self._initialise(self._loop, ((activity,) for activity in ACTIVITIES))
        self._age = BulkHistogram(
            "conversation_record_age_seconds", "Age of records when they were processed", _AGE_S, self.registry
        )
        self._behind = BulkHistogram(
            "conversation_out_of_order_seconds", "How far records lay behind the newest of their partition", _AGE_S,
            self.registry,
        )  # fmt: skip
        self._commit_s = BulkHistogram(
            "conversation_commit_duration_seconds", "Duration of commits", _COMMIT_S, self.registry
        )
        self._loop_lag = BulkHistogram(
            "conversation_loop_lag_seconds", "How late the event loop was", _LOOP_LAG_S, self.registry
        )
        for histogram in (self._age, self._behind, self._commit_s, self._loop_lag):
            histogram.initialise([""])
        self._lag_records = self._partition_gauge("lag_records", "Records between the position and the end")
        self._lag_s = self._partition_gauge("lag_seconds", "Age of the last record processed while there is lag, else 0")
        self._remaining = self._partition_gauge("restore_remaining_records", "Records of the state topic left to restore")
        self._restore_s = self._partition_gauge("restore_duration_seconds", "Duration of the last opening of a lane")
        self._breaker = self._partition_gauge("breaker_open", "1 while too many dead letters hold the lane")
        self._last_commit = self._partition_gauge("last_commit_timestamp_seconds", "When the lane last committed")
        self._assigned = Gauge("conversation_assigned_partitions", "Partitions this worker owns", registry=self.registry)
        self._last_poll = Gauge(
            "conversation_last_poll_timestamp_seconds", "When a lane last asked for records", registry=self.registry
        )
        build = Info("conversation_build", "Version of the service", registry=self.registry)
        build.info({"version": VERSION, "python": platform.python_version()})

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None, now_s: float) -> None:
        """Count what a successful commit held."""
        for pair, count in tally.records.items():
            self._records.labels(*pair).inc(count)
        for template, count in tally.templates.items():
            self._topics.labels(template).inc(count)
        for note, count in tally.notes.items():
            self._oddities.labels(note).inc(count)
        self._bytes.inc(tally.record_bytes)
        self._evicted.inc(tally.evicted)
        self._count_contact_centre(tally)
        self._age.observe(age_ms / 1_000 for age_ms in tally.ages_ms)
        self._behind.observe(behind_ms / 1_000 for behind_ms in tally.behind_ms)
        self._commits.labels("success").inc()
        self._commit_s.observe((duration_s,))
        self._last_commit.labels(partition).set(now_s)
        if lag_records is not None:
            self._lag_records.labels(partition).set(lag_records)
            age_s = tally.ages_ms[-1] / 1_000 if tally.ages_ms and lag_records else 0.0
            self._lag_s.labels(partition).set(max(0.0, age_s))

    def _count_contact_centre(self, tally: Tally) -> None:
        for (media, before, after), count in tally.asserted.items():
            self._transitions.labels(media, _state(before) if before else "", _state(after)).inc(count)
        for media, count in tally.retracted.items():
            self._corrections.labels(media).inc(count)
        for (media, time_class), count in tally.time_classes.items():
            self._time_sources.labels(media, time_class).inc(count)
        for (media, kind), count in tally.disconnects.items():
            self._disconnects.labels(media, kind if kind in DISCONNECT_TYPES or not kind else OTHER).inc(count)
        for media, milliseconds in tally.connect_ms:
            self._connect.observe((milliseconds / 1_000,), media)
        for media, milliseconds in tally.duration_ms:
            self._duration.observe((milliseconds / 1_000,), media)

    def commit_failed(self) -> None:
        """A commit or an opening failed."""
        self._commits.labels("failure").inc()

    def spent(self, activity: str, seconds: float, now_s: float) -> None:
        """Count loop time."""
        self._loop.labels(activity).inc(seconds)
        if activity == "fetch_wait":
            self._last_poll.set(now_s)

    def loop_late(self, seconds: float) -> None:
        """The event loop ran a timer so late."""
        self._loop_lag.observe((seconds,))

    def rebalanced(self, kind: str) -> None:
        """The group decided."""
        self._rebalances.labels(kind).inc()

    def restoring(self, partition: int, remaining: int) -> None:
        """Progress of a restore."""
        self._remaining.labels(partition).set(remaining)

    def lane_opened(self, partition: int, duration_s: float) -> None:
        """A lane opened its gate."""
        self._restore_s.labels(partition).set(duration_s)
        self._remaining.labels(partition).set(0)
        self._breaker.labels(partition).set(0)

    def breaker_opened(self, partition: int) -> None:
        """A lane stopped for its dead letters."""
        self._breaker.labels(partition).set(1)

    def watch(self, partition: int, census: Census, size: PartitionSize) -> None:
        """Read a lane's state at each scrape."""
        self._partitions.watched[partition] = (census, size)
        self._assigned.set(len(self._partitions.watched))

    def lane_closed(self, partition: int) -> None:
        """Remove every series of a partition."""
        self._partitions.watched.pop(partition, None)
        self._assigned.set(len(self._partitions.watched))
        for gauge in self._partition_gauges:
            gauge.remove_by_labels({"partition": str(partition)})

    def described(self) -> list[tuple[str, str, str, str]]:
        """Every metric as (name, type, labels, help), sorted by name, for the documentation and its test."""
        rows = []
        for collector in self.registry._collector_to_names:  # noqa: SLF001 - the registry offers no list
            for family in _families(collector):
                labels = getattr(collector, "_labelnames", None) or (getattr(collector, "label", ""),)
                if isinstance(collector, _Partitions):
                    labels = collector.labels[family.name]
                name = f"{family.name}_total" if family.type == "counter" else family.name
                rows.append((name, family.type, ", ".join(filter(None, labels)), family.documentation))
        return sorted(rows)

    def _counter(self, name: str, documentation: str, *labels: str, media: bool = False) -> Counter:
        counter = Counter(f"conversation_{name}", documentation, labels, registry=self.registry)
        if media:
            self._initialise(counter, ((each,) for each in MEDIA))
        return counter

    def _partition_gauge(self, name: str, documentation: str) -> Gauge:
        gauge = Gauge(f"conversation_{name}", documentation, ["partition"], registry=self.registry)
        self._partition_gauges.append(gauge)
        return gauge

    @staticmethod
    def _initialise(counter: Counter, labels: Iterable[tuple[str, ...]]) -> None:
        for each in labels:
            counter.labels(*each)

    @property
    def _partition_gauges(self) -> list[Gauge]:
        return self._partitions.gauges


class _Partitions(Collector):
    """What is read from the lanes at scrape time."""

    labels: Final = {
        "conversation_communications": ("media", "state"),
        "conversation_oldest_live_timestamp_seconds": ("media",),
        "conversation_state_conversations": ("partition",),
        "conversation_state_bytes": ("partition",),
    }

    def __init__(self, registry: CollectorRegistry) -> None:
        self.gauges: list[Gauge] = []
        self.watched: dict[int, tuple[Census, PartitionSize]] = {}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The families as of now."""
        communications = self._family("conversation_communications", "Communications known, by state")
        oldest = self._family(
            "conversation_oldest_live_timestamp_seconds", "First event of the oldest live communication"
        )
        conversations = self._family("conversation_state_conversations", "Conversations in memory")
        state_bytes = self._family("conversation_state_bytes", "Bytes of state in memory")
        states: Counts[tuple[str, str]] = Counts()
        since: dict[str, str] = {}
        for partition, (census, size) in self.watched.items():
            for (media, state), count in census.states.items():
                states[media, _state(state)] += count
            for media, first in census.oldest_live().items():
                since[media] = min(first, since.get(media, first))
            count, held = size()
            conversations.add_metric([str(partition)], count)
            state_bytes.add_metric([str(partition)], held)
        for media in MEDIA:
            for state in RANKS:
                communications.add_metric([media, state], states.pop((media, state), 0))
            communications.add_metric([media, OTHER], states.pop((media, OTHER), 0))
            if media in since:
                oldest.add_metric([media], times.milliseconds(since[media]) / 1_000)
        yield from (communications, oldest, conversations, state_bytes)

    def _family(self, name: str, documentation: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, documentation, labels=self.labels[name])


def _families(collector: Collector) -> Iterable[Metric]:
    describe = getattr(collector, "describe", None)
    return describe() if describe is not None else collector.collect()


def _state(state: str) -> str:
    return state if state in RANKS else OTHER
