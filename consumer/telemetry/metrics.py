"""Every metric of the service, declared once. Two families: the contact centre and the pipeline.

1. Label values come from closed sets; any other value is exported as `other`. Series of closed sets start at 0, except
   transitions and the communications of a partition, where most pairs of values never occur.
2. Counters change once per commit, after it has succeeded: consumed = applied + unchanged + ignored + dead_lettered.
3. The series of a partition are removed when its lane closes.
"""

import platform
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final, get_args

from prometheus_client import CollectorRegistry

from consumer.core.framing import FRAMINGS
from consumer.core.lifecycle import DISCONNECT_TYPES
from consumer.core.notification_topics import TEMPLATES
from consumer.core.reasons import ANOMALIES, DEAD_LETTER_REASONS, DISPOSITIONS, IGNORED_REASONS, REASONS
from consumer.engine.choice import EngineName
from consumer.engine.commit_stats import DECLINED_REASONS, CommitStats
from consumer.telemetry.families import Described, Families
from consumer.telemetry.labels import CONNECTION_REFUSALS, MEDIA, OTHER, REFUSALS, STATES, TOPICS, Refusal
from consumer.telemetry.lane_gauges import LaneGauges
from consumer.version import VERSION
from consumer.worker.ports import ACTIVITIES
from consumer.worker.settlement import Verdict
from consumer.worker.standstill import Lag
from schemas.state import TimeClass

TIME_CLASSES: Final[tuple[str, ...]] = get_args(TimeClass)
_MEDIA_LABELS: Final = (*MEDIA, OTHER)
_CONNECT_S: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800)
_DURATION_S: Final = (5, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 86_400)
_AGE_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
_COMMIT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_SKEW_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)
_LOOP_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_FUTURE_MS: Final = -1_000
"""The age below which a record counts as one from the future; synchronised clocks differ by less."""


class Metrics:
    """The registry and all metrics in it. `now_s` is the wall clock, which scrapes read; `engine` is what lanes run."""

    def __init__(self, now_s: Callable[[], float] = time.time, *, engine: EngineName = "python") -> None:
        self._families = Families()
        self._assigned: set[int] = set()
        self._lanes = LaneGauges(self.registry, now_s)
        self.watch = self._lanes.watch
        self._declare_contact_centre()
        self._declare_records()
        self._declare_lanes()
        self._declare_worker(engine)
        self._declare_partitions()

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that a scrape reads."""
        return self._families.registry

    def _declare_contact_centre(self) -> None:
        self._transitions = self._families.counter(
            "transitions_total",
            "Asserted transitions by the state left (empty for the first) and the state entered.",
            {"media": _MEDIA_LABELS, "from": ("", *STATES, OTHER), "to": (*STATES, OTHER)},
            [],
        )
        self._corrections = self._families.counter(
            "corrections_total",
            "Transitions retracted because an older observation arrived later.",
            {"media": _MEDIA_LABELS},
            [(media,) for media in MEDIA],
        )
        self._time_sources = self._families.counter(
            "time_sources_total",
            "Asserted transitions by the source of their time: provider, state or snapshot.",
            {"media": _MEDIA_LABELS, "time_class": (*TIME_CLASSES, OTHER)},
            list(product(MEDIA, TIME_CLASSES)),
        )
        disconnect_types = ("", *sorted(DISCONNECT_TYPES))
        self._disconnects = self._families.counter(
            "disconnects_total",
            "Ended communications by disconnect type (empty if no record has one).",
            {"media": _MEDIA_LABELS, "disconnect_type": disconnect_types},
            list(product(MEDIA, disconnect_types)),
        )
        self._connect = self._families.histogram(
            "connect_seconds",
            "Time from a communication's first state to its first live state.",
            _CONNECT_S,
            "media",
            MEDIA,
        )
        self._duration = self._families.histogram(
            "duration_seconds",
            "Time from a communication's first live state to its end.",
            _DURATION_S,
            "media",
            MEDIA,
        )

    def _declare_records(self) -> None:
        self._records = self._families.counter(
            "records_total",
            "Consumed records by disposition and reason.",
            {"disposition": (*DISPOSITIONS, OTHER), "reason": ("", *IGNORED_REASONS, *DEAD_LETTER_REASONS, OTHER)},
            [(disposition, reason) for disposition, reasons in REASONS.items() for reason in reasons],
        )
        self._topics = self._families.counter(
            "topic_records_total",
            "Consumed records by template of their notification topic.",
            {"topic": TEMPLATES},
            [(template,) for template in TEMPLATES],
        )
        self._framings = self._families.counter(
            "framings_total",
            "Records used although their relay frames values, or spells keys, in a way of its own.",
            {"framing": FRAMINGS},
            [(framing,) for framing in FRAMINGS],
        )
        self._anomalies = self._families.counter(
            "data_anomalies_total",
            "Data anomalies in records that were still applied.",
            {"kind": (*ANOMALIES, OTHER)},
            [(anomaly,) for anomaly in ANOMALIES],
        )
        self._bytes = self._families.counter("record_bytes_total", "Bytes of consumed record values.", {}, [()])
        self._evicted = self._families.counter(
            "evicted_total", "Conversations evicted after their retention.", {}, [()]
        )
        self._declined = self._families.counter(
            "engine_declined_total",
            "Records that the native engine left to the rules in Python, by reason.",
            {"reason": (*DECLINED_REASONS, OTHER)},
            [(reason,) for reason in DECLINED_REASONS],
        )
        self._age = self._families.histogram("record_age_seconds", "Age of records when they were processed.", _AGE_S)
        self._behind = self._families.histogram(
            "out_of_order_seconds",
            "How far out-of-order records were behind the newest of their partition.",
            _AGE_S,
        )
        self._skew = self._families.histogram(
            "event_skew_seconds",
            "Difference between the newest event time in a snapshot and the time of the snapshot.",
            _SKEW_S,
            "direction",
            ("behind", "ahead"),
        )
        self._future = self._families.counter(
            "future_records_total",
            "Records whose timestamp is over a second ahead of this worker's clock.",
            {},
            [()],
        )

    def _declare_lanes(self) -> None:
        self._commits = self._families.counter(
            "commits_total",
            "Commits of lanes; after a failure the lane drops what it staged and opens again.",
            {"result": ("success", "failure")},
            [("success",), ("failure",)],
        )
        self._opening_failures = self._families.counter(
            "opening_failures_total", "Failed attempts to open a lane; the lane tries again.", {}, [()]
        )
        self._offset_resets = self._families.counter(
            "offset_resets_total",
            "Times a lane started at the first record because the partition does not hold the committed offset.",
            {},
            [()],
        )
        self._repaired = self._families.counter(
            "transactions_repaired_total",
            "Transactions whose end brokers had lost in some partitions and the lane wrote again.",
            {"verdict": ("abort", "commit")},
            [("abort",), ("commit",)],
        )
        self._rebalances = self._families.counter(
            "rebalances_total",
            "Assignments and revocations of partitions by the consumer group.",
            {"kind": ("assigned", "revoked", OTHER)},
            [("assigned",), ("revoked",)],
        )
        self._loop = self._families.counter(
            "loop_seconds_total",
            "Time that lanes spent, by activity.",
            {"activity": (*ACTIVITIES, OTHER)},
            [(activity,) for activity in ACTIVITIES],
        )
        self._commit_duration = self._families.histogram(
            "commit_duration_seconds", "Duration of successful commits.", _COMMIT_S
        )

    def _declare_worker(self, engine: EngineName) -> None:
        self._refusals = self._families.counter(
            "http_refusals_total",
            "Connections and requests that the admin or query port refused or ended, by reason.",
            {"port": ("admin", "query"), "reason": REFUSALS},
            [*product(("admin",), CONNECTION_REFUSALS), *product(("query",), REFUSALS)],
        )
        self._loop_lag = self._families.histogram("loop_lag_seconds", "Delay of timers in the event loop.", _LOOP_LAG_S)
        self._assigned_partitions = self._families.gauge("assigned_partitions", "Partitions assigned to this worker.")
        self._input_partitions = self._families.gauge(
            "input_partitions", "Partitions of the input topic, whichever worker owns them; 0 while unknown."
        )
        offline = self._families.gauge(
            "offline_partitions", "Partitions without a leader in the newest metadata.", "topic"
        )
        self._offline_partitions = {topic: offline.labels(topic) for topic in TOPICS}
        self._connected = self._families.gauge(
            "connected", "1 if this worker was a connected member of the group seconds ago, else 0."
        )
        self._last_poll = self._families.gauge(
            "last_poll_timestamp_seconds", "When a lane last waited for records, in seconds since the epoch."
        )
        self._families.info(
            "build",
            "Version of the service and of Python, and the engine: native or python.",
            {"version": VERSION, "python": platform.python_version(), "engine": engine},
        )

    def _declare_partitions(self) -> None:
        self._lag_records = self._families.partition_gauge(
            "lag_records", "Records between the lane's position and the end of the log, open transactions included."
        )
        self._undecided = self._families.partition_gauge(
            "undecided_records", "Records at the end of the log that wait for an open transaction to end."
        )
        self._undecided_s = self._families.partition_gauge(
            "undecided_seconds", "Age of the newest record in the open transaction that others wait for, else 0."
        )
        self._restored = self._families.partition_gauge(
            "restored_conversations", "Conversations that the lane had when it opened."
        )
        self._remaining = self._families.partition_gauge(
            "restore_remaining_records", "Records of the state topic that are still to be restored."
        )
        self._restore_s = self._families.partition_gauge(
            "restore_duration_seconds", "Duration of the lane's last opening."
        )
        self._breaker = self._families.partition_gauge(
            "breaker_open", "1 while the lane is stopped by too many dead letters, else 0."
        )
        self._last_commit = self._families.partition_gauge(
            "last_commit_timestamp_seconds", "When the lane last committed, in seconds since the epoch."
        )

    def committed(
        self, partition: int, stats: CommitStats, duration_s: float, lag_records: int | None, now_s: float
    ) -> None:
        """Count the records and effects of a successful commit."""
        self._records.add_all(stats.records)
        self._topics.add_by_value(stats.templates)
        self._anomalies.add_by_value(stats.anomalies)
        self._framings.add_by_value(stats.framings)
        self._declined.add_by_value(stats.declined)
        self._bytes.add((), stats.record_bytes)
        self._evicted.add((), stats.evicted)
        self._count_contact_centre(stats)
        self._age.observe_ms([max(0, age_ms) for age_ms in stats.ages_ms])  # a clock that is ahead makes it negative
        self._future.add((), sum(age_ms < _FUTURE_MS for age_ms in stats.ages_ms))
        self._behind.observe_ms(stats.behind_ms)
        self._skew.observe_ms([skew_ms for skew_ms in stats.skew_ms if skew_ms >= 0], "behind")
        self._skew.observe_ms([-skew_ms for skew_ms in stats.skew_ms if skew_ms < 0], "ahead")
        self._commits.add(("success",))
        self._commit_duration.observe_ms((duration_s * 1_000,))
        self._last_commit.labels(partition).set(now_s)
        if stats.ages_ms:
            self._lanes.reach(partition).position_s = now_s - stats.ages_ms[-1] / 1_000
        if lag_records is not None:
            self._lag(partition, lag_records, now_s)

    def lagging(self, partition: int, lag: Lag, now_s: float, still_since_s: float | None = None) -> None:
        """Set how far a lane is behind the end of its partition; an unknown lag leaves the gauges as they are.

        `still_since_s` is the wall clock time since when the partition has stood still, None if it moves.
        """
        reach = self._lanes.reach(partition)
        reach.still_since_s = still_since_s
        if lag.records is None:
            reach.is_lag_known = False
            return
        self._lag(partition, lag.records, now_s)
        self._undecided.labels(partition).set(lag.undecided)
        self._undecided_s.labels(partition).set(lag.undecided_s)

    def _lag(self, partition: int, lag_records: int, now_s: float) -> None:
        self._lag_records.labels(partition).set(lag_records)
        self._lanes.reach(partition).note_lag(lag_records, now_s)

    @property
    def lag_records(self) -> int:
        """The lag of all lanes together, as last known."""
        return self._lanes.lag_records

    def _count_contact_centre(self, stats: CommitStats) -> None:
        self._transitions.add_all(stats.asserted)
        self._corrections.add_by_value(stats.retracted)
        self._time_sources.add_all(stats.time_classes)
        self._disconnects.add_all(stats.disconnects)
        for media, connect_ms in stats.connect_ms:
            self._connect.observe_ms((connect_ms,), media if media in MEDIA else OTHER)
        for media, duration_ms in stats.duration_ms:
            self._duration.observe_ms((duration_ms,), media if media in MEDIA else OTHER)

    def commit_failed(self) -> None:
        """An open lane failed to commit what it had staged."""
        self._commits.add(("failure",))

    def opening_failed(self) -> None:
        """A lane failed to open."""
        self._opening_failures.add(())

    def offset_reset(self) -> None:
        """A lane could not continue from its committed offset."""
        self._offset_resets.add(())

    def transaction_repaired(self, verdict: Verdict) -> None:
        """A lane wrote the end of a transaction that brokers had lost."""
        self._repaired.add((verdict,))

    def spent(self, activity: str, seconds: float, now_s: float) -> None:
        """Count loop time."""
        self._loop.add((activity,), seconds)
        if activity == "fetch_wait":
            self._last_poll.set(now_s)

    def http_refused(self, port: str, reason: Refusal) -> None:
        """The `admin` or the `query` port refused or ended a connection or a request."""
        self._refusals.add((port, reason))

    def loop_late(self, seconds: float) -> None:
        """The event loop ran a timer so many seconds late."""
        self._loop_lag.observe_ms((seconds * 1_000,))

    def rebalanced(self, kind: str, partitions: Sequence[int]) -> None:
        """The group gave partitions (`assigned`) or took them (`revoked`).

        The series of a partition that was awaited after a revocation, and was not given back, are removed.
        """
        self._rebalances.add((kind,))
        if kind == "assigned":
            for partition in self._lanes.partitions() - set(partitions):
                self._lanes.forget(partition)
                self._families.forget(partition)
            self._assigned.update(partitions)
        else:
            self._assigned.difference_update(partitions)
        self._assigned_partitions.set(len(self._assigned))

    def connected(self, *, is_connected: bool) -> None:
        """Whether this worker is a connected member of the group, as last asked."""
        self._connected.set(is_connected)

    def input_partitions(self, count: int) -> None:
        """Set how many partitions the input topic has."""
        self._input_partitions.set(count)

    def offline_partitions(self, topic: str, count: int) -> None:
        """Set how many partitions of one of `TOPICS` have no leader."""
        self._offline_partitions[topic].set(count)

    def restoring(self, partition: int, remaining: int) -> None:
        """Set how many records a restore still has to read."""
        self._remaining.labels(partition).set(remaining)

    def lane_opened(self, partition: int, conversations: int, duration_s: float) -> None:
        """A lane has opened with so many conversations, after `duration_s`."""
        self._restored.labels(partition).set(conversations)
        self._restore_s.labels(partition).set(duration_s)
        self._remaining.labels(partition).set(0)
        self._breaker.labels(partition).set(0)

    def breaker_opened(self, partition: int) -> None:
        """A lane stopped because of its dead letters."""
        self._breaker.labels(partition).set(1)

    def lane_closed(self, partition: int) -> None:
        """Remove every series of a partition."""
        self._lanes.forget(partition)
        self._assigned.discard(partition)
        self._assigned_partitions.set(len(self._assigned))
        self._families.forget(partition)

    def describe_all(self) -> list[Described]:
        """Every metric, sorted by name, for the documentation and its test."""
        lane_gauges = [Described(*family) for family in LaneGauges.families]
        return sorted([*self._families.described, *lane_gauges])
