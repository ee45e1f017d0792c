"""Every metric of the service, declared once. Two families: the contact centre and the pipeline.

1. Label values come from closed sets; anything else is shown as `other`. Series of closed sets start at 0, but for
   transitions, where most pairs of states never happen.
2. Counters move once per commit, after it succeeded: consumed = applied + unchanged + ignored + dead_lettered.
3. Series of a partition are removed when its lane closes.
"""

import platform
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final, get_args

from prometheus_client import CollectorRegistry

from consumer.adapters.monitoring.families import Described, Families
from consumer.adapters.monitoring.labels import MEDIA, OTHER, STATES, TOPICS
from consumer.adapters.monitoring.lane_gauges import LaneGauges, PartitionSize
from consumer.adapters.web.bounded_http import REFUSALS, Refusal
from consumer.core.lifecycle import DISCONNECT_TYPES
from consumer.core.step import DEAD_LETTER_REASONS, DISPOSITIONS, IGNORED_REASONS, NOTES
from consumer.core.topics import TEMPLATES
from consumer.runtime.census import Census
from consumer.runtime.ports import ACTIVITIES
from consumer.runtime.settlement import Verdict
from consumer.runtime.standstill import Lag
from consumer.runtime.tally import Tally
from consumer.version import VERSION
from schemas.state import TimeClass

TIME_CLASSES: Final[tuple[str, ...]] = get_args(TimeClass)
REASONS: Final = {
    "applied": ("",),
    "unchanged": ("",),
    "ignored": IGNORED_REASONS,
    "dead_lettered": DEAD_LETTER_REASONS,
}
"""Every valid pair of disposition and reason."""

_MEDIA_SHOWN: Final = (*MEDIA, OTHER)
_CONNECT_S: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800)
_DURATION_S: Final = (5, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 86_400)
_AGE_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)
_COMMIT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_SKEW_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)
_LOOP_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_FUTURE_MS: Final = -1_000
"""The age below which a record counts as one from the future; clocks in order differ by less."""


class Metrics:
    """The registry and everything in it. `now_s` is the wall clock, read at scrapes."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._families = Families()
        self._assigned: set[int] = set()
        self._lanes = LaneGauges(self.registry, now_s)
        self._declare_contact_centre()
        self._declare_records()
        self._declare_lanes()
        self._declare_worker()
        self._declare_partitions()

    @property
    def registry(self) -> CollectorRegistry:
        """What a scrape reads."""
        return self._families.registry

    def _declare_contact_centre(self) -> None:
        self._transitions = self._families.counter(
            "transitions_total",
            "Transitions asserted, from the state left (empty for the first) to the state entered.",
            {"media": _MEDIA_SHOWN, "from": ("", *STATES, OTHER), "to": (*STATES, OTHER)},
            [],
        )
        self._corrections = self._families.counter(
            "corrections_total",
            "Transitions retracted because an older observation arrived later.",
            {"media": _MEDIA_SHOWN},
            [(media,) for media in MEDIA],
        )
        self._time_sources = self._families.counter(
            "time_sources_total",
            "Transitions asserted, by where their time is from: the provider, the state itself or only the snapshot.",
            {"media": _MEDIA_SHOWN, "time_class": (*TIME_CLASSES, OTHER)},
            list(product(MEDIA, TIME_CLASSES)),
        )
        disconnect_types = ("", *sorted(DISCONNECT_TYPES))
        self._disconnects = self._families.counter(
            "disconnects_total",
            "Communications that ended, by disconnect type (empty if none was shown).",
            {"media": _MEDIA_SHOWN, "disconnect_type": disconnect_types},
            list(product(MEDIA, disconnect_types)),
        )
        self._connect = self._families.histogram(
            "connect_seconds",
            "Time from a communication's first state to its first live one.",
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
            "Records consumed, by what became of them and why.",
            {"disposition": (*DISPOSITIONS, OTHER), "reason": ("", *IGNORED_REASONS, *DEAD_LETTER_REASONS, OTHER)},
            [(disposition, reason) for disposition, reasons in REASONS.items() for reason in reasons],
        )
        self._topics = self._families.counter(
            "topic_records_total",
            "Records consumed, by template of their notification topic.",
            {"topic": TEMPLATES},
            [(template,) for template in TEMPLATES],
        )
        self._oddities = self._families.counter(
            "oddities_total",
            "Oddities noticed in records that were used all the same.",
            {"kind": (*NOTES, OTHER)},
            [(note,) for note in NOTES],
        )
        self._bytes = self._families.counter("record_bytes_total", "Bytes of the values of consumed records.", {}, [()])
        self._evicted = self._families.counter(
            "evicted_total", "Conversations evicted after their retention.", {}, [()]
        )
        self._age = self._families.histogram("record_age_seconds", "Age of records when they were processed.", _AGE_S)
        self._behind = self._families.histogram(
            "out_of_order_seconds", "How far out-of-order records lay behind the newest of their partition.", _AGE_S
        )
        self._skew = self._families.histogram(
            "event_skew_seconds",
            "How far the newest event time of a snapshot lay behind the snapshot's time, or ahead of it.",
            _SKEW_S,
            "direction",
            ("behind", "ahead"),
        )
        self._future = self._families.counter(
            "future_records_total", "Records from more than a second ahead of this worker's clock.", {}, [()]
        )

    def _declare_lanes(self) -> None:
        self._commits = self._families.counter(
            "commits_total",
            "Commits of lanes; after a failure the lane drops what it had staged and opens anew.",
            {"result": ("success", "failure")},
            [("success",), ("failure",)],
        )
        self._opening_failures = self._families.counter(
            "opening_failures_total", "Openings of lanes that failed; each is tried again.", {}, [()]
        )
        self._offset_resets = self._families.counter(
            "offset_resets_total",
            "Lanes that began at the first record because their partition does not hold the committed offset.",
            {},
            [()],
        )
        self._repaired = self._families.counter(
            "transactions_repaired_total",
            "Transactions of lanes whose end brokers had lost in some partitions and the service wrote again.",
            {"verdict": ("abort", "commit")},
            [("abort",), ("commit",)],
        )
        self._rebalances = self._families.counter(
            "rebalances_total",
            "Decisions of the consumer group about this worker.",
            {"kind": ("assigned", "revoked", OTHER)},
            [("assigned",), ("revoked",)],
        )
        self._loop = self._families.counter(
            "loop_seconds_total",
            "Time of the lanes, by what it was spent on.",
            {"activity": (*ACTIVITIES, OTHER)},
            [(activity,) for activity in ACTIVITIES],
        )
        self._commit_duration = self._families.histogram(
            "commit_duration_seconds", "Duration of successful commits.", _COMMIT_S
        )

    def _declare_worker(self) -> None:
        self._refusals = self._families.counter(
            "http_refusals_total",
            "Connections and requests that the admin or query port refused or ended, by why.",
            {"port": ("admin", "query"), "reason": REFUSALS},
            [*product(("admin", "query"), REFUSALS)],
        )
        self._loop_lag = self._families.histogram(
            "loop_lag_seconds", "How late the event loop ran a timer.", _LOOP_LAG_S
        )
        self._assigned_partitions = self._families.gauge(
            "assigned_partitions", "Partitions that the group gave this worker."
        )
        self._input_partitions = self._families.gauge(
            "input_partitions", "Partitions of the input topic, of this worker or not; 0 as long as it does not know."
        )
        offline = self._families.gauge(
            "offline_partitions", "Partitions without a leader, by the newest metadata.", "topic"
        )
        self._offline_partitions = {topic: offline.labels(topic) for topic in TOPICS}
        self._connected = self._families.gauge(
            "connected", "Whether Kafka has this worker in the group, as of seconds ago."
        )
        self._last_poll = self._families.gauge("last_poll_timestamp_seconds", "When a lane last waited for records.")
        self._families.info(
            "build", "Version of the service and of Python.", {"version": VERSION, "python": platform.python_version()}
        )

    def _declare_partitions(self) -> None:
        self._lag_records = self._families.partition_gauge(
            "lag_records", "Records between the lane's position and the end of its partition, also while it is held up."
        )
        self._undecided = self._families.partition_gauge(
            "undecided_records", "Records at the end of the partition that wait for the end of a transaction."
        )
        self._undecided_s = self._families.partition_gauge(
            "undecided_seconds", "Age of the newest record of the transaction that others wait for, 0 for none."
        )
        self._restored = self._families.partition_gauge(
            "restored_conversations", "Conversations known when the lane opened."
        )
        self._remaining = self._families.partition_gauge(
            "restore_remaining_records", "Records of the state topic that are left to restore."
        )
        self._restore_s = self._families.partition_gauge(
            "restore_duration_seconds", "Duration of the lane's last opening."
        )
        self._breaker = self._families.partition_gauge(
            "breaker_open", "1 while too many dead letters hold the lane, else 0."
        )
        self._last_commit = self._families.partition_gauge(
            "last_commit_timestamp_seconds", "When the lane last committed."
        )

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None, now_s: float) -> None:
        """Count what a successful commit held."""
        self._records.add_all(tally.records)
        self._topics.add_each(tally.templates)
        self._oddities.add_each(tally.notes)
        self._bytes.add((), tally.record_bytes)
        self._evicted.add((), tally.evicted)
        self._count_contact_centre(tally)
        self._age.observe_ms([max(0, age_ms) for age_ms in tally.ages_ms])  # negative where clocks differ
        self._future.add((), sum(age_ms < _FUTURE_MS for age_ms in tally.ages_ms))
        self._behind.observe_ms(tally.behind_ms)
        self._skew.observe_ms([skew_ms for skew_ms in tally.skew_ms if skew_ms >= 0], "behind")
        self._skew.observe_ms([-skew_ms for skew_ms in tally.skew_ms if skew_ms < 0], "ahead")
        self._commits.add(("success",))
        self._commit_duration.observe_ms((duration_s * 1_000,))
        self._last_commit.labels(partition).set(now_s)
        if tally.ages_ms:
            self._lanes.reach(partition).position_s = now_s - tally.ages_ms[-1] / 1_000
        if lag_records is not None:
            self._lag(partition, lag_records, now_s)

    def lagging(self, partition: int, lag: Lag, now_s: float) -> None:
        """A lane is so far behind the end of its partition; a lag that is not known stays as it was."""
        if lag.records is None:
            self._lanes.reach(partition).is_lag_known = False
            return
        self._lag(partition, lag.records, now_s)
        self._undecided.labels(partition).set(lag.undecided)
        self._undecided_s.labels(partition).set(lag.undecided_s)

    def _lag(self, partition: int, lag_records: int, now_s: float) -> None:
        self._lag_records.labels(partition).set(lag_records)
        self._lanes.reach(partition).note_lag(lag_records, now_s)

    def stands_still(self, partition: int, since_s: float) -> None:
        """A partition has not moved since that time."""
        self._lanes.reach(partition).still_since_s = since_s

    def moves_again(self, partition: int) -> None:
        """A partition does not stand still any more."""
        self._lanes.reach(partition).still_since_s = None

    @property
    def lag_records(self) -> int:
        """How far all lanes together are behind, as told last."""
        return self._lanes.lag_records

    def _count_contact_centre(self, tally: Tally) -> None:
        self._transitions.add_all(tally.asserted)
        self._corrections.add_each(tally.retracted)
        self._time_sources.add_all(tally.time_classes)
        self._disconnects.add_all(tally.disconnects)
        for media, connect_ms in tally.connect_ms:
            self._connect.observe_ms((connect_ms,), media if media in MEDIA else OTHER)
        for media, duration_ms in tally.duration_ms:
            self._duration.observe_ms((duration_ms,), media if media in MEDIA else OTHER)

    def commit_failed(self) -> None:
        """What an open lane had staged was not committed."""
        self._commits.add(("failure",))

    def opening_failed(self) -> None:
        """A lane could not be opened."""
        self._opening_failures.add(())

    def offset_reset(self) -> None:
        """A lane could not go on from its committed offset."""
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
        """The `admin` or the `query` port refused a connection or a request, or ended it."""
        self._refusals.add((port, reason))

    def loop_late(self, seconds: float) -> None:
        """The event loop ran a timer so late."""
        self._loop_lag.observe_ms((seconds * 1_000,))

    def rebalanced(self, kind: str, partitions: Sequence[int]) -> None:
        """The group gave partitions (`assigned`) or took them (`revoked`)."""
        self._rebalances.add((kind,))
        if kind == "assigned":
            self._assigned.update(partitions)
        else:
            self._assigned.difference_update(partitions)
        self._assigned_partitions.set(len(self._assigned))

    def connected(self, *, is_connected: bool) -> None:
        """Kafka was asked whether it has this worker in the group."""
        self._connected.set(is_connected)

    def input_partitions(self, count: int) -> None:
        """The input topic has so many partitions."""
        self._input_partitions.set(count)

    def offline_partitions(self, topic: str, count: int) -> None:
        """So many partitions of one of `TOPICS` have no leader."""
        self._offline_partitions[topic].set(count)

    def restoring(self, partition: int, remaining: int) -> None:
        """Progress of a restore, in records."""
        self._remaining.labels(partition).set(remaining)

    def lane_opened(self, partition: int, conversations: int, duration_s: float) -> None:
        """A lane opened its gate with so many conversations restored."""
        self._restored.labels(partition).set(conversations)
        self._restore_s.labels(partition).set(duration_s)
        self._remaining.labels(partition).set(0)
        self._breaker.labels(partition).set(0)

    def breaker_opened(self, partition: int) -> None:
        """A lane stopped for its dead letters."""
        self._breaker.labels(partition).set(1)

    def watch(self, partition: int, census: Census, size: PartitionSize) -> None:
        """Read a lane's state at each scrape, until `lane_closed`."""
        self._lanes.watched[partition] = (census, size)

    def lane_closed(self, partition: int) -> None:
        """Remove every series of a partition."""
        self._lanes.forget(partition)
        self._assigned.discard(partition)
        self._assigned_partitions.set(len(self._assigned))
        self._families.forget(partition)

    def described(self) -> list[Described]:
        """Every metric, sorted by name, for the documentation and its test."""
        of_lanes = [Described(*family) for family in LaneGauges.families]
        return sorted([*self._families.described, *of_lanes])
