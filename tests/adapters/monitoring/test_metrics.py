"""The metrics as a scraper reads them."""

import sys
import time
from collections import Counter
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.adapters.monitoring.families import Described
from consumer.adapters.monitoring.histogram import BulkHistogram
from consumer.adapters.monitoring.labels import MEDIA, STATES, TOPICS
from consumer.adapters.monitoring.metrics import REASONS, Metrics
from consumer.core.lifecycle import DISCONNECT_TYPES
from consumer.core.step import DISPOSITIONS, NOTES
from consumer.core.topics import TEMPLATES
from consumer.runtime.census import Census
from consumer.runtime.ports import ACTIVITIES
from consumer.runtime.standstill import Lag
from consumer.runtime.tally import Tally

NOW_S = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def scraped(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Samples of one name by their label values, in declared order, read from the exposition's text."""
    declared = {each.name: each.labels for each in metrics.described()}
    labels = declared[name] if name in declared else declared[name.rpartition("_")[0]]
    text = generate_latest(metrics.registry).decode()
    return {
        tuple(sample.labels[label] for label in labels.split(", ") if label): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def partitions_shown(metrics: Metrics) -> set[str]:
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
        "conversation_records_total": {(each, reason) for each, reasons in REASONS.items() for reason in reasons},
        "conversation_topic_records_total": {(template,) for template in TEMPLATES},
        "conversation_oddities_total": {(note,) for note in NOTES},
        "conversation_corrections_total": {(media,) for media in MEDIA},
        "conversation_time_sources_total": set(product(MEDIA, ("provider", "state", "snapshot"))),
        "conversation_disconnects_total": set(product(MEDIA, ("", *DISCONNECT_TYPES))),
        "conversation_commits_total": {("success",), ("failure",)},
        "conversation_rebalances_total": {("assigned",), ("revoked",)},
        "conversation_loop_seconds_total": {(activity,) for activity in ACTIVITIES},
        "conversation_communications": set(product(MEDIA, (*STATES, "other"))),
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
        assert scraped(metrics, name) == dict.fromkeys(labels, 0.0), name
    assert scraped(metrics, "conversation_transitions_total") == {}


def test_consumed_is_the_sum_of_the_dispositions() -> None:
    metrics = Metrics()
    records = Counter(
        {("applied", ""): 5, ("unchanged", ""): 3, ("ignored", "heartbeat"): 2, ("dead_lettered", "bad_json"): 1}
    )
    tally = Tally(records=records, templates=Counter({"none": 9, "other": 2}), record_bytes=1_234)
    metrics.committed(0, tally, 0.02, 7, NOW_S)
    metrics.committed(1, tally, 0.02, 0, NOW_S)
    shown = scraped(metrics, "conversation_records_total")
    assert {labels: count for labels, count in shown.items() if count} == {
        labels: 2.0 * count for labels, count in records.items()
    }
    assert sum(shown.values()) == 2 * tally.consumed
    assert sum(scraped(metrics, "conversation_topic_records_total").values()) == 2 * tally.consumed
    assert scraped(metrics, "conversation_record_bytes_total") == {(): 2_468.0}
    assert scraped(metrics, "conversation_commits_total") == {("success",): 2.0, ("failure",): 0.0}
    assert scraped(metrics, "conversation_lag_records") == {("0",): 7.0, ("1",): 0.0}


def test_a_failed_commit_counts_no_records() -> None:
    metrics = Metrics()
    metrics.commit_failed()
    assert scraped(metrics, "conversation_commits_total") == {("success",): 0.0, ("failure",): 1.0}
    assert sum(scraped(metrics, "conversation_records_total").values()) == 0


def test_the_contact_centre_is_counted() -> None:
    metrics = Metrics()
    tally = Tally(
        asserted=Counter({("call", "", "alerting"): 2, ("call", "alerting", "connected"): 1}),
        retracted=Counter({"cobrowse": 3}),
        time_classes=Counter({("call", "provider"): 3}),
        disconnects=Counter({("call", "peer"): 1, ("call", ""): 2}),
        connect_ms=[("call", 1_500)],
        duration_ms=[("call", 61_000), ("call", 14_000)],
        evicted=4,
    )
    metrics.committed(0, tally, 0.1, None, NOW_S)
    assert scraped(metrics, "conversation_transitions_total") == {
        ("call", "", "alerting"): 2.0,
        ("call", "alerting", "connected"): 1.0,
    }
    assert scraped(metrics, "conversation_corrections_total")[("cobrowse",)] == 3
    assert scraped(metrics, "conversation_time_sources_total")["call", "provider"] == 3
    assert scraped(metrics, "conversation_disconnects_total")["call", "peer"] == 1
    assert scraped(metrics, "conversation_disconnects_total")["call", ""] == 2
    assert scraped(metrics, "conversation_connect_seconds_sum")[("call",)] == 1.5
    assert scraped(metrics, "conversation_duration_seconds_sum")[("call",)] == 75.0
    assert scraped(metrics, "conversation_evicted_total") == {(): 4.0}
    assert scraped(metrics, "conversation_lag_records") == {}


def test_what_is_outside_a_closed_set_is_shown_as_other() -> None:
    metrics, mark = Metrics(), "mark-of-somebody"
    tally = Tally(
        records=Counter({("ignored", mark): 1, (mark, ""): 1}),
        templates=Counter({mark: 1}),
        notes=Counter({mark: 1, f"{mark}-2": 1}),
        asserted=Counter({(mark, mark, mark): 1, ("call", "none", f"{mark}-2"): 1}),
        retracted=Counter({mark: 1}),
        time_classes=Counter({("call", mark): 1}),
        disconnects=Counter({("call", mark): 1, ("call", f"{mark}-2"): 1}),
        connect_ms=[(mark, 1)],
        duration_ms=[(mark, 1)],
    )
    census = Census()
    census.states["call", mark] += 1
    census.states[mark, mark] += 1
    metrics.watch(0, census, lambda: (0, 0))
    metrics.committed(0, tally, 0.1, 0, NOW_S)
    metrics.spent(mark, 1.0, NOW_S)
    metrics.rebalanced(mark, [])
    assert mark not in generate_latest(metrics.registry).decode()
    assert scraped(metrics, "conversation_records_total")["ignored", "other"] == 1
    assert scraped(metrics, "conversation_oddities_total")[("other",)] == 2
    assert scraped(metrics, "conversation_transitions_total") == {
        ("other", "other", "other"): 1.0,
        ("call", "none", "other"): 1.0,
    }
    assert scraped(metrics, "conversation_disconnects_total")["call", "other"] == 2
    assert scraped(metrics, "conversation_communications")["call", "other"] == 1
    assert scraped(metrics, "conversation_communications")["other", "other"] == 1


def test_every_series_of_a_partition_goes_with_its_lane() -> None:
    metrics = Metrics()
    for partition in (3, 4):
        metrics.restoring(partition, 100)
        metrics.lane_opened(partition, 10, 0.5)
        metrics.watch(partition, Census(), lambda: (10, 2_000))
        metrics.committed(partition, Tally(ages_ms=[5]), 0.1, 7, NOW_S)
        metrics.lagging(partition, Lag(7), NOW_S)
        metrics.stands_still(partition, NOW_S)
        metrics.breaker_opened(partition)
    declared = {each.name for each in metrics.described() if each.labels == "partition"}
    assert {name for name in declared if set(scraped(metrics, name)) != {("3",), ("4",)}} == set()
    metrics.lane_closed(3)
    assert partitions_shown(metrics) == {"4"}
    metrics.lane_closed(4)
    metrics.lane_closed(4)
    assert partitions_shown(metrics) == set()


def test_states_are_read_at_the_scrape_and_summed_over_lanes() -> None:
    metrics, first, second = Metrics(), Census(), Census()
    held = [1, 100]
    metrics.watch(0, first, lambda: (held[0], held[1]))
    metrics.watch(1, second, lambda: (2, 200))
    first.states["call", "connected"] += 2
    second.states["call", "connected"] += 3
    second.states["email", "parked"] += 1
    first._live_since = {"call": {"c": ["2026-01-01T10:00:01.500Z"]}}
    second._live_since = {"call": {"d": ["2026-01-01T10:00:00.500Z"]}, "email": {}}
    held[:] = [5, 500]
    communications = scraped(metrics, "conversation_communications")
    assert communications["call", "connected"] == 5
    assert communications["email", "parked"] == 1
    assert scraped(metrics, "conversation_oldest_live_timestamp_seconds") == {("call",): 1_767_261_600.5}
    assert scraped(metrics, "conversation_state_conversations") == {("0",): 5.0, ("1",): 2.0}
    assert scraped(metrics, "conversation_state_bytes") == {("0",): 500.0, ("1",): 200.0}
    metrics.lane_closed(1)
    assert scraped(metrics, "conversation_communications")["call", "connected"] == 2


def test_lag_in_seconds_grows_while_nothing_is_committed_and_ends_when_caught_up() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, Tally(ages_ms=[9_000, 4_000]), 0.1, 50, NOW_S)
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 4.0}
    clock.now_s += 60
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 64.0}
    metrics.committed(0, Tally(ages_ms=[10]), 0.1, 0, clock.now_s)
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 0.0}


def test_lag_is_also_told_without_a_commit() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, Tally(ages_ms=[1_000]), 0.1, 10, NOW_S)
    metrics.lagging(0, Lag(30, 4, 12.5), NOW_S)
    clock.now_s += 60
    assert scraped(metrics, "conversation_lag_records") == {("0",): 30.0}
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 61.0}
    assert scraped(metrics, "conversation_undecided_records") == {("0",): 4.0}
    assert scraped(metrics, "conversation_undecided_seconds") == {("0",): 12.5}
    metrics.lane_closed(0)
    assert scraped(metrics, "conversation_lag_records") == {}


def test_lag_in_seconds_grows_while_the_leader_is_out_of_reach() -> None:
    """The lag in records stays: nothing can know it. What was read when the lane was at the end is not behind."""
    clock = Clock()
    metrics = Metrics(clock)
    metrics.committed(0, Tally(ages_ms=[3_600_000]), 0.1, 0, NOW_S)
    clock.now_s += 5
    metrics.lagging(0, Lag(0), clock.now_s)
    metrics.lagging(0, Lag(None), clock.now_s + 1)
    clock.now_s += 40
    assert scraped(metrics, "conversation_lag_records") == {("0",): 0.0}
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 40.0}
    metrics.lagging(0, Lag(0), clock.now_s)
    assert scraped(metrics, "conversation_lag_seconds") == {("0",): 0.0}


def test_a_standstill_is_shown_by_its_age() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.lagging(0, Lag(0), NOW_S)
    assert scraped(metrics, "conversation_standstill_seconds") == {("0",): 0.0}
    metrics.stands_still(0, NOW_S - 10)
    clock.now_s += 20
    assert scraped(metrics, "conversation_standstill_seconds") == {("0",): 30.0}
    metrics.moves_again(0)
    assert scraped(metrics, "conversation_standstill_seconds") == {("0",): 0.0}


def test_a_record_from_the_future_does_not_take_from_the_sum_of_ages() -> None:
    metrics = Metrics()
    metrics.committed(0, Tally(ages_ms=[-60_000, 2_000]), 0.1, 1, NOW_S)
    assert scraped(metrics, "conversation_record_age_seconds_sum") == {(): 2.0}
    assert scraped(metrics, "conversation_record_age_seconds_count") == {(): 2.0}


def test_records_from_the_future_are_counted() -> None:
    metrics = Metrics()
    metrics.committed(0, Tally(ages_ms=[-60_000, -1_001, -1_000, 0, 2_000]), 0.1, 1, NOW_S)
    assert scraped(metrics, "conversation_future_records_total") == {(): 2.0}


def test_event_times_lie_behind_their_snapshot_or_ahead() -> None:
    metrics = Metrics()
    metrics.committed(0, Tally(skew_ms=[250, 750, -4_000, 0]), 0.1, 1, NOW_S)
    assert scraped(metrics, "conversation_event_skew_seconds_sum") == {("behind",): 1.0, ("ahead",): 4.0}
    assert scraped(metrics, "conversation_event_skew_seconds_count") == {("behind",): 3.0, ("ahead",): 1.0}


def test_the_partitions_of_the_input_are_told_whoever_owns_them() -> None:
    metrics = Metrics()
    assert scraped(metrics, "conversation_input_partitions") == {(): 0.0}
    metrics.input_partitions(12)
    metrics.rebalanced("assigned", [0])
    assert scraped(metrics, "conversation_input_partitions") == {(): 12.0}


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus-client reads /proc")
def test_the_process_is_told_of() -> None:
    metrics = Metrics()
    resident = scraped(metrics, "process_resident_memory_bytes")[()]
    assert 10_000_000 < resident < 100_000_000_000
    assert 0 <= time.time() - scraped(metrics, "process_start_time_seconds")[()] < 100_000


def test_assigned_partitions_follow_the_group() -> None:
    metrics = Metrics()
    metrics.rebalanced("assigned", [0, 1, 2])
    metrics.rebalanced("assigned", [2, 3])
    assert scraped(metrics, "conversation_assigned_partitions") == {(): 4.0}
    metrics.rebalanced("revoked", [0])
    metrics.lane_closed(0)
    metrics.lane_closed(1)
    assert scraped(metrics, "conversation_assigned_partitions") == {(): 2.0}


def test_loop_time_and_the_last_poll_are_counted() -> None:
    metrics = Metrics()
    metrics.spent("process", 0.25, NOW_S)
    assert scraped(metrics, "conversation_last_poll_timestamp_seconds") == {(): 0.0}
    metrics.spent("fetch_wait", 0.5, NOW_S)
    metrics.loop_late(0.004)
    spent = scraped(metrics, "conversation_loop_seconds_total")
    assert (spent[("process",)], spent[("fetch_wait",)]) == (0.25, 0.5)
    assert scraped(metrics, "conversation_last_poll_timestamp_seconds") == {(): NOW_S}
    assert scraped(metrics, "conversation_loop_lag_seconds_sum") == {(): 0.004}


def test_the_list_of_metrics_is_what_a_scrape_shows() -> None:
    metrics = Metrics()
    metrics.rebalanced("assigned", [0])
    metrics.lane_opened(0, 0, 0.1)
    metrics.watch(0, Census(), lambda: (0, 0))
    metrics.committed(0, Tally(asserted=Counter({("call", "", "alerting"): 1}), ages_ms=[1]), 0.1, 0, NOW_S)
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    shown = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type, family.documentation)
        for family in families
    }
    told_of_process = sys.platform == "linux"
    described = [each for each in metrics.described() if told_of_process or not each.name.startswith("process_")]
    assert {(each.name, each.type, each.documentation) for each in described} == shown
    assert len(described) == len(shown)
    labels = {
        (f"{family.name}_total" if family.type == "counter" else family.name): set(family.samples[0].labels) - {"le"}
        for family in families
        if family.samples
    }
    assert {
        each.name: set(filter(None, each.labels.split(", "))) for each in described if each.name in labels
    } == labels


@pytest.mark.parametrize("described", Metrics().described(), ids=lambda each: each.name)
def test_names_and_helps_follow_the_conventions(described: Described) -> None:
    name, kind, documentation = described.name, described.type, described.documentation
    assert name.startswith(("conversation_", "process_"))
    assert name.endswith("_total") == (kind == "counter")
    assert kind != "histogram" or name.endswith("_seconds")
    assert documentation[0].isupper() or documentation[0].isdigit()
    assert documentation.endswith(".")


def test_the_series_stay_few() -> None:
    text = generate_latest(Metrics().registry).decode()
    assert sum(not line.startswith("#") for line in text.splitlines()) < 1_000
    assert "_created" not in text


def test_a_bulk_histogram_counts_into_cumulative_buckets_with_inclusive_bounds() -> None:
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
