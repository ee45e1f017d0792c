"""The metrics as a scraper reads them."""

import sys
import time
from collections import Counter
from itertools import product
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.core.framing import FRAMINGS
from consumer.core.lifecycle import DISCONNECT_TYPES
from consumer.core.notification_topics import TEMPLATES
from consumer.core.reasons import ANOMALIES, DISPOSITIONS, REASONS, Disposition, Reason
from consumer.core.rules import Rules
from consumer.engine.choice import EngineName
from consumer.engine.commit_stats import DECLINED_REASONS, CommitStats
from consumer.engine.state_store import StateStore
from consumer.telemetry.families import Described
from consumer.telemetry.histogram import BulkHistogram
from consumer.telemetry.labels import MEDIA, TOPICS
from consumer.telemetry.metrics import Metrics
from consumer.version import VERSION
from consumer.worker.ports import ACTIVITIES
from consumer.worker.standstill import Lag

NOW_S = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def scrape(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by their label values in declared order, parsed from the exposition."""
    declared = {family.name: family.labels for family in metrics.describe_all()}
    labels = declared[name] if name in declared else declared[name.rpartition("_")[0]]
    text = generate_latest(metrics.registry).decode()
    return {
        tuple(sample.labels[label] for label in labels.split(", ") if label): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def exported_partitions(metrics: Metrics) -> set[str]:
    text = generate_latest(metrics.registry).decode()
    return {
        sample.labels["partition"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "partition" in sample.labels
    }


def test_the_valid_reasons_name_every_disposition() -> None:
    assert tuple(REASONS) == DISPOSITIONS


def test_closed_label_sets_start_at_zero() -> None:
    metrics = Metrics()
    expected: dict[str, set[tuple[str, ...]]] = {
        "conversation_records_total": {
            (disposition, reason) for disposition, reasons in REASONS.items() for reason in reasons
        },
        "conversation_topic_records_total": {(template,) for template in TEMPLATES},
        "conversation_framings_total": {(framing,) for framing in FRAMINGS},
        "conversation_data_anomalies_total": {(anomaly,) for anomaly in ANOMALIES},
        "conversation_corrections_total": {(media,) for media in MEDIA},
        "conversation_time_sources_total": set(product(MEDIA, ("provider", "state", "snapshot"))),
        "conversation_disconnects_total": set(product(MEDIA, ("", *DISCONNECT_TYPES))),
        "conversation_commits_total": {("success",), ("failure",)},
        "conversation_rebalances_total": {("assigned",), ("revoked",)},
        "conversation_loop_seconds_total": {(activity,) for activity in ACTIVITIES},
        "conversation_offline_partitions": {(topic,) for topic in TOPICS},
        "conversation_connect_seconds_count": {(media,) for media in MEDIA},
        "conversation_duration_seconds_count": {(media,) for media in MEDIA},
        "conversation_record_age_seconds_count": {()},
        "conversation_out_of_order_seconds_count": {()},
        "conversation_commit_duration_seconds_count": {()},
        "conversation_loop_lag_seconds_count": {()},
        "conversation_record_bytes_total": {()},
        "conversation_evicted_total": {()},
        "conversation_opening_failures_total": {()},
        "conversation_event_skew_seconds_count": {("behind",), ("ahead",)},
        "conversation_future_records_total": {()},
    }
    for name, labels in expected.items():
        assert scrape(metrics, name) == dict.fromkeys(labels, 0.0), name
    assert scrape(metrics, "conversation_transitions_total") == {}


def test_consumed_is_the_sum_of_the_dispositions() -> None:
    metrics = Metrics()
    records: Counter[tuple[Disposition, Reason]] = Counter(
        {("applied", ""): 5, ("unchanged", ""): 3, ("ignored", "heartbeat"): 2, ("dead_lettered", "bad_json"): 1}
    )
    stats = CommitStats(records=records, templates=Counter({"none": 9, "other": 2}), record_bytes=1_234)
    metrics.committed(0, stats, 0.02, 7, NOW_S)
    metrics.committed(1, stats, 0.02, 0, NOW_S)
    consumed = scrape(metrics, "conversation_records_total")
    assert {labels: count for labels, count in consumed.items() if count} == {
        labels: 2.0 * count for labels, count in records.items()
    }
    assert sum(consumed.values()) == 2 * stats.consumed
    assert sum(scrape(metrics, "conversation_topic_records_total").values()) == 2 * stats.consumed
    assert scrape(metrics, "conversation_record_bytes_total") == {(): 2_468.0}
    assert scrape(metrics, "conversation_commits_total") == {("success",): 2.0, ("failure",): 0.0}
    assert scrape(metrics, "conversation_lag_records") == {("0",): 7.0, ("1",): 0.0}


def test_a_failed_commit_counts_no_records() -> None:
    metrics = Metrics()
    metrics.commit_failed()
    assert scrape(metrics, "conversation_commits_total") == {("success",): 0.0, ("failure",): 1.0}
    assert sum(scrape(metrics, "conversation_records_total").values()) == 0


def test_the_contact_centre_is_counted() -> None:
    metrics = Metrics()
    stats = CommitStats(
        asserted=Counter({("call", "", "alerting"): 2, ("call", "alerting", "connected"): 1}),
        retracted=Counter({"cobrowse": 3}),
        time_classes=Counter({("call", "provider"): 3}),
        disconnects=Counter({("call", "peer"): 1, ("call", ""): 2}),
        connect_ms=[("call", 1_500)],
        duration_ms=[("call", 61_000), ("call", 14_000)],
        evicted=4,
    )
    metrics.committed(0, stats, 0.1, None, NOW_S)
    assert scrape(metrics, "conversation_transitions_total") == {
        ("call", "", "alerting"): 2.0,
        ("call", "alerting", "connected"): 1.0,
    }
    assert scrape(metrics, "conversation_corrections_total")[("cobrowse",)] == 3
    assert scrape(metrics, "conversation_time_sources_total")["call", "provider"] == 3
    assert scrape(metrics, "conversation_disconnects_total")["call", "peer"] == 1
    assert scrape(metrics, "conversation_disconnects_total")["call", ""] == 2
    assert scrape(metrics, "conversation_connect_seconds_sum")[("call",)] == 1.5
    assert scrape(metrics, "conversation_duration_seconds_sum")[("call",)] == 75.0
    assert scrape(metrics, "conversation_evicted_total") == {(): 4.0}
    assert scrape(metrics, "conversation_lag_records") == {}


def test_a_value_outside_its_closed_set_is_exported_as_other() -> None:
    metrics = Metrics()
    mark: Any = "mark-of-a-record"
    second: Any = f"{mark}-2"
    stats = CommitStats(
        records=Counter({("ignored", mark): 1, (mark, ""): 1}),
        templates=Counter({mark: 1}),
        anomalies=Counter({mark: 1, second: 1}),
        asserted=Counter({(mark, mark, mark): 1, ("call", "none", second): 1}),
        retracted=Counter({mark: 1}),
        time_classes=Counter({("call", mark): 1}),
        disconnects=Counter({("call", mark): 1, ("call", second): 1}),
        connect_ms=[(mark, 1)],
        duration_ms=[(mark, 1)],
    )
    store = StateStore(Rules())
    store.live_index.states["call", mark] += 1
    store.live_index.states["call", second] += 1
    store.live_index.states[mark, mark] += 1
    metrics.watch(lambda: {0: store})
    metrics.committed(0, stats, 0.1, 0, NOW_S)
    metrics.spent(mark, 1.0, NOW_S)
    metrics.rebalanced(mark, [])
    assert mark not in generate_latest(metrics.registry).decode()
    assert scrape(metrics, "conversation_records_total")["ignored", "other"] == 1
    assert scrape(metrics, "conversation_data_anomalies_total")[("other",)] == 2
    assert scrape(metrics, "conversation_transitions_total") == {
        ("other", "other", "other"): 1.0,
        ("call", "none", "other"): 1.0,
    }
    assert scrape(metrics, "conversation_disconnects_total")["call", "other"] == 2
    assert scrape(metrics, "conversation_communications") == {("0", "call", "other"): 2, ("0", "other", "other"): 1}


def test_every_series_of_a_partition_goes_with_its_lane() -> None:
    metrics = Metrics()
    states = {3: StateStore(Rules()), 4: StateStore(Rules())}
    metrics.watch(lambda: states)
    for partition in (3, 4):
        metrics.restoring(partition, 100)
        metrics.lane_opened(partition, 10, 0.5)
        metrics.committed(partition, CommitStats(ages_ms=[5]), 0.1, 7, NOW_S)
        metrics.lagging(partition, Lag(7), NOW_S, NOW_S)
        metrics.breaker_opened(partition)
    declared = {family.name for family in metrics.describe_all() if family.labels == "partition"}
    assert {name for name in declared if set(scrape(metrics, name)) != {("3",), ("4",)}} == set()
    metrics.lane_closed(3)
    del states[3]
    assert exported_partitions(metrics) == {"4"}
    metrics.lane_closed(4)
    metrics.lane_closed(4)
    del states[4]
    assert exported_partitions(metrics) == set()


def test_states_are_read_at_the_scrape() -> None:
    metrics, states = Metrics(), {0: StateStore(Rules()), 1: StateStore(Rules())}
    first, second = states[0].live_index, states[1].live_index
    metrics.watch(lambda: states, read_generation=lambda: 7)
    first.states["call", "connected"] += 2
    second.states["call", "connected"] += 3
    second.states["email", "parked"] += 1
    first._live_since = {"call": {"c": ["2026-01-01T10:00:01.500Z"]}}
    second._live_since = {"call": {"d": ["2026-01-01T10:00:00.500Z"]}, "email": {}}
    states[0]._committed = dict.fromkeys("abcde", b"")
    states[0].committed_bytes, states[1].committed_bytes = 500, 200
    assert scrape(metrics, "conversation_communications") == {
        ("0", "call", "connected"): 2,
        ("1", "call", "connected"): 3,
        ("1", "email", "parked"): 1,
    }
    assert scrape(metrics, "conversation_partition_generation") == {("0",): 7.0, ("1",): 7.0}
    assert scrape(metrics, "conversation_oldest_live_timestamp_seconds") == {("call",): 1_767_261_600.5}
    assert scrape(metrics, "conversation_state_conversations") == {("0",): 5.0, ("1",): 0.0}
    assert scrape(metrics, "conversation_state_bytes") == {("0",): 500.0, ("1",): 200.0}
    del states[1]
    assert scrape(metrics, "conversation_communications") == {("0", "call", "connected"): 2}


def test_lag_in_seconds_grows_until_the_lane_has_caught_up() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, CommitStats(ages_ms=[9_000, 4_000]), 0.1, 50, NOW_S)
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 4.0}
    clock.now_s += 60
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 64.0}
    metrics.committed(0, CommitStats(ages_ms=[10]), 0.1, 0, clock.now_s)
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 0.0}


def test_lag_is_exported_without_a_commit() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, CommitStats(ages_ms=[1_000]), 0.1, 10, NOW_S)
    metrics.lagging(0, Lag(30, 4, 12.5), NOW_S)
    clock.now_s += 60
    assert scrape(metrics, "conversation_lag_records") == {("0",): 30.0}
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 61.0}
    assert scrape(metrics, "conversation_undecided_records") == {("0",): 4.0}
    assert scrape(metrics, "conversation_undecided_seconds") == {("0",): 12.5}
    metrics.lane_closed(0)
    assert scrape(metrics, "conversation_lag_records") == {}


def test_lag_in_seconds_grows_while_the_leader_is_out_of_reach() -> None:
    """Nothing can know the lag in records: it stays. Records from before the lane was at the end do not count."""
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, CommitStats(ages_ms=[3_600_000]), 0.1, 0, NOW_S)
    clock.now_s += 5
    metrics.lagging(0, Lag(0), clock.now_s)
    metrics.lagging(0, Lag(None), clock.now_s + 1)
    clock.now_s += 40
    assert scrape(metrics, "conversation_lag_records") == {("0",): 0.0}
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 40.0}
    metrics.lagging(0, Lag(0), clock.now_s)
    assert scrape(metrics, "conversation_lag_seconds") == {("0",): 0.0}


def test_partition_that_is_not_given_back_loses_its_series() -> None:
    metrics = Metrics()
    metrics.lagging(0, Lag(7), NOW_S, NOW_S)
    metrics.lagging(1, Lag(7), NOW_S, NOW_S)
    metrics.rebalanced("assigned", [1])
    assert scrape(metrics, "conversation_lag_records").keys() == {("1",)}
    assert scrape(metrics, "conversation_standstill_seconds").keys() == {("1",)}


def test_a_standstill_is_exported_by_its_age() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.lagging(0, Lag(0), NOW_S)
    assert scrape(metrics, "conversation_standstill_seconds") == {("0",): 0.0}
    metrics.lagging(0, Lag(None), NOW_S, NOW_S - 10)
    clock.now_s += 20
    assert scrape(metrics, "conversation_standstill_seconds") == {("0",): 30.0}
    metrics.lagging(0, Lag(0), NOW_S)
    assert scrape(metrics, "conversation_standstill_seconds") == {("0",): 0.0}


def test_a_record_from_the_future_has_an_age_of_zero() -> None:
    metrics = Metrics()
    metrics.committed(0, CommitStats(ages_ms=[-60_000, 2_000]), 0.1, 1, NOW_S)
    assert scrape(metrics, "conversation_record_age_seconds_sum") == {(): 2.0}
    assert scrape(metrics, "conversation_record_age_seconds_count") == {(): 2.0}


def test_records_from_the_future_are_counted() -> None:
    metrics = Metrics()
    metrics.committed(0, CommitStats(ages_ms=[-60_000, -1_001, -1_000, 0, 2_000]), 0.1, 1, NOW_S)
    assert scrape(metrics, "conversation_future_records_total") == {(): 2.0}


def test_event_times_are_behind_their_snapshot_or_ahead() -> None:
    metrics = Metrics()
    metrics.committed(0, CommitStats(skew_ms=[250, 750, -4_000, 0]), 0.1, 1, NOW_S)
    assert scrape(metrics, "conversation_event_skew_seconds_sum") == {("behind",): 1.0, ("ahead",): 4.0}
    assert scrape(metrics, "conversation_event_skew_seconds_count") == {("behind",): 3.0, ("ahead",): 1.0}


def test_input_partitions_include_those_of_other_workers() -> None:
    metrics = Metrics()
    assert scrape(metrics, "conversation_input_partitions") == {(): 0.0}
    metrics.input_partitions(12)
    metrics.rebalanced("assigned", [0])
    assert scrape(metrics, "conversation_input_partitions") == {(): 12.0}


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus-client reads /proc")
def test_the_process_is_exported() -> None:
    metrics = Metrics()
    resident = scrape(metrics, "process_resident_memory_bytes")[()]
    assert 10_000_000 < resident < 100_000_000_000
    assert 0 <= time.time() - scrape(metrics, "process_start_time_seconds")[()] < 100_000


def test_assigned_partitions_follow_the_group() -> None:
    metrics = Metrics()
    metrics.rebalanced("assigned", [0, 1, 2])
    metrics.rebalanced("assigned", [2, 3])
    assert scrape(metrics, "conversation_assigned_partitions") == {(): 4.0}
    metrics.rebalanced("revoked", [0])
    metrics.lane_closed(0)
    metrics.lane_closed(1)
    assert scrape(metrics, "conversation_assigned_partitions") == {(): 2.0}


def test_loop_time_and_the_last_poll_are_counted() -> None:
    metrics = Metrics()
    metrics.spent("process", 0.25, NOW_S)
    assert scrape(metrics, "conversation_last_poll_timestamp_seconds") == {(): 0.0}
    metrics.spent("fetch_wait", 0.5, NOW_S)
    metrics.loop_late(0.004)
    spent = scrape(metrics, "conversation_loop_seconds_total")
    assert (spent[("process",)], spent[("fetch_wait",)]) == (0.25, 0.5)
    assert scrape(metrics, "conversation_last_poll_timestamp_seconds") == {(): NOW_S}
    assert scrape(metrics, "conversation_loop_lag_seconds_sum") == {(): 0.004}


def test_the_described_metrics_are_those_of_a_scrape() -> None:
    metrics = Metrics()
    metrics.rebalanced("assigned", [0])
    metrics.lane_opened(0, 0, 0.1)
    metrics.watch(lambda: {0: StateStore(Rules())})
    metrics.committed(0, CommitStats(asserted=Counter({("call", "", "alerting"): 1}), ages_ms=[1]), 0.1, 0, NOW_S)
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    scraped = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type, family.documentation)
        for family in families
    }
    has_process = sys.platform == "linux"
    described = [metric for metric in metrics.describe_all() if has_process or not metric.name.startswith("process_")]
    assert {(metric.name, metric.type, metric.documentation) for metric in described} == scraped
    assert len(described) == len(scraped)
    labels = {
        (f"{family.name}_total" if family.type == "counter" else family.name): set(family.samples[0].labels) - {"le"}
        for family in families
        if family.samples
    }
    assert {
        metric.name: set(filter(None, metric.labels.split(", "))) for metric in described if metric.name in labels
    } == labels


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_build_info_names_the_engine(engine: EngineName) -> None:
    text = generate_latest(Metrics(engine=engine).registry).decode()
    (line,) = [line for line in text.splitlines() if line.startswith("conversation_build_info{")]
    assert f'engine="{engine}"' in line
    assert f'version="{VERSION}"' in line


def test_declined_records_are_counted_by_reason() -> None:
    metrics = Metrics()
    assert scrape(metrics, "conversation_engine_declined_total") == dict.fromkeys(
        [(reason,) for reason in DECLINED_REASONS], 0.0
    )
    later: Any = "a new one"
    metrics.committed(0, CommitStats(declined=Counter({"json": 2, "key": 1, later: 3})), 0.1, 0, NOW_S)
    declined = scrape(metrics, "conversation_engine_declined_total")
    assert {reason: count for (reason,), count in declined.items() if count} == {"json": 2, "key": 1, "other": 3}


@pytest.mark.parametrize("described", Metrics().describe_all(), ids=lambda metric: metric.name)
def test_names_and_helps_follow_the_conventions(described: Described) -> None:
    name, kind, documentation = described.name, described.type, described.documentation
    assert name.startswith(("conversation_", "process_"))
    assert name.endswith("_total") == (kind == "counter")
    assert kind != "histogram" or name.endswith("_seconds")
    assert documentation[0].isupper() or documentation[0].isdigit()
    assert documentation.endswith(".")


def test_the_series_stay_few() -> None:
    text = generate_latest(Metrics().registry).decode()
    assert sum(not line.startswith("#") for line in text.splitlines()) < 1_100
    assert "_created" not in text


def test_a_bulk_histogram_has_cumulative_buckets() -> None:
    """With inclusive upper bounds."""
    registry = CollectorRegistry()
    histogram = BulkHistogram("h_seconds", "Help.", (0.001, 0.0025, 1), registry)
    histogram.observe_ms([0, 1, 2, 2.5, 3, 1_000, 1_001])
    (family,) = text_string_to_metric_families(generate_latest(registry).decode())
    assert [(sample.name, sample.labels.get("le"), sample.value) for sample in family.samples] == [
        ("h_seconds_bucket", "0.001", 2.0),
        ("h_seconds_bucket", "0.0025", 4.0),
        ("h_seconds_bucket", "1.0", 6.0),
        ("h_seconds_bucket", "+Inf", 7.0),
        ("h_seconds_count", None, 7.0),
        ("h_seconds_sum", None, 2.0095),
    ]


def test_a_name_cannot_be_declared_twice() -> None:
    registry = CollectorRegistry()
    BulkHistogram("h_seconds", "Help.", (1,), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        BulkHistogram("h_seconds", "Help.", (1,), registry)
