"""What a lane counts for a record."""

from typing import Any

import msgspec
import pytest

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.core.step import step
from consumer.engine.commit_stats import CommitStats
from tests.strategies import BASE_MS, make_record
from tests.worker.scenes import call, heartbeat, rubbish

SNAPSHOT_MS = 1_767_261_610_000
CONNECTED = "2026-01-01T10:00:08.500Z"
AHEAD = "2026-01-01T10:00:13.000Z"
ALERTED = "2026-01-01T10:00:06.000Z"


def count_snapshots(*snapshots: tuple[int, dict[str, Any]]) -> CommitStats:
    """The stats of snapshots of one co-browse session; a snapshot is (time in ms, session)."""
    stats, state = CommitStats(), None
    for at_ms, session in snapshots:
        body = {"id": "c", "participants": [{"id": "p", "cobrowsesessions": [{"id": "s", **session}]}]}
        record = Record("updates", 0, 0, at_ms, b"c", msgspec.json.encode(body))
        outcome = step(record, Rules(), None, lambda _, known=state: known)  # type: ignore[misc]
        stats.add(record, outcome, None, at_ms)
        state = outcome.stored if isinstance(outcome, Applied) else state
    assert stats.records["applied", ""] == len(snapshots)
    return stats


def count(*records: Record) -> CommitStats:
    """The stats of records that a lane processes ten seconds after `BASE_MS`."""
    stats, known, stream_ms = CommitStats(), dict[str, StoredState](), None
    for record in records:
        outcome = step(record, Rules(), stream_ms, known.get)
        stats.add(record, outcome, stream_ms, BASE_MS + 10_000)
        stream_ms = outcome.stream_ms
        if isinstance(outcome, Applied):
            known[outcome.conversation_id] = outcome.stored
    return stats


def test_record_counts_by_outcome_topic_bytes_and_anomaly() -> None:
    tombstone = Record("updates", 0, 9, BASE_MS, b"c1", None)
    stateless = make_record({"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1"}]}]})
    records = [call(0, "alerting", 1), call(1, "alerting", 1), heartbeat(2), rubbish(3), tombstone, stateless]
    stats = count(*records)
    assert stats.records == {
        ("applied", ""): 1,
        ("unchanged", ""): 2,
        ("ignored", "heartbeat"): 1,
        ("ignored", "tombstone"): 1,
        ("dead_lettered", "bad_json"): 1,
    }
    assert stats.consumed == len(records)
    assert stats.templates["v2.users.{id}.conversations"] == 2
    assert stats.templates.total() == len(records)
    assert stats.record_bytes == sum(len(record.value or b"") for record in records)
    assert stats.anomalies == {"communication_without_state": 1}


def test_ended_communication_counts_times_and_disconnect_type() -> None:
    stats = count(
        call(0, "alerting", 1),
        call(1, "connected", 5),
        call(2, "disconnected", 12, disconnectType="peer"),
        call(3, "terminated", 12, disconnectType="peer"),
    )
    assert stats.asserted == {
        ("call", "", "alerting"): 1,
        ("call", "alerting", "connected"): 1,
        ("call", "connected", "disconnected"): 1,
        ("call", "disconnected", "terminated"): 1,
    }
    assert stats.time_classes == {("call", "snapshot"): 1, ("call", "state"): 3}
    assert stats.retracted == {}
    assert (stats.connect_ms, stats.duration_ms) == ([("call", 4_000)], [("call", 7_000)])
    assert stats.disconnects == {("call", "peer"): 1}


@pytest.mark.parametrize(
    ("states", "connect_ms", "duration_ms", "ends"),
    [
        (["alerting"], [], [], 0),
        (["alerting", "disconnected"], [], [], 1),
        (["connected"], [], [], 0),
        (["connected", "disconnected"], [], [1_000], 1),
        (["alerting", "terminated"], [], [], 1),
        (["dialing", "alerting", "connected"], [2_000], [], 0),
        (["connected", "transmitting", "disconnected"], [], [2_000], 1),
        (["alerting", "connected", "transmitting", "disconnected", "terminated"], [1_000], [2_000], 1),
    ],
)
def test_missing_phases_count_nothing_and_none_counts_twice(
    states: list[str], connect_ms: list[int], duration_ms: list[int], ends: int
) -> None:
    stats = count(*(call(second, state, second) for second, state in enumerate(states)))
    assert stats.connect_ms == [("call", wait_ms) for wait_ms in connect_ms]
    assert stats.duration_ms == [("call", length_ms) for length_ms in duration_ms]
    assert stats.disconnects == ({("call", ""): ends} if ends else {})


def test_terminated_ends_a_communication_too() -> None:
    stats = count_snapshots(
        (SNAPSHOT_MS, {"state": "terminated", "providerEventTime": CONNECTED, "disconnectType": "timeout"})
    )
    assert stats.asserted == {("cobrowse", "", "terminated"): 1}
    assert (stats.disconnects, stats.duration_ms) == ({("cobrowse", "timeout"): 1}, [])


def test_late_alerting_counts_no_second_connection() -> None:
    """It retracts and asserts transitions again; the connection and the end were counted before."""
    stats = count(call(0, "connected", 5), call(1, "disconnected", 9), call(2, "alerting", 1))
    assert stats.retracted == {"call": 2}
    assert (stats.connect_ms, stats.duration_ms, stats.disconnects) == ([], [("call", 4_000)], {("call", ""): 1})


def test_age_is_the_time_since_a_valid_record_timestamp() -> None:
    unstamped = [
        msgspec.structs.replace(call(offset, "alerting", offset), timestamp_ms=timestamp_ms)
        for offset, timestamp_ms in enumerate((-1, 0, 1, SNAPSHOT_MS // 1_000, SNAPSHOT_MS * 1_000), 2)
    ]
    assert count(call(0, "alerting", 1), rubbish(1, 4), *unstamped, call(9, "connected", 12)).ages_ms == [
        9_000,
        6_000,
        -2_000,
    ]


def test_snapshot_dated_by_its_newest_event_has_no_skew() -> None:
    dated = count(call(0, "connected", 5))
    undated = count(msgspec.structs.replace(call(0, "connected", 5), timestamp_ms=-1))
    assert (len(dated.skew_ms), undated.skew_ms) == (1, [])
    assert (dated.anomalies, undated.anomalies) == ({}, {"time_of_body": 1})


def test_disorder_is_measured_against_the_stream_time_before() -> None:
    records = [
        call(0, "alerting", 5),
        call(1, "alerting", 5),
        call(2, "alerting", 2),
        rubbish(3),
        call(4, "alerting", 4),
    ]
    late = call(5, "alerting", 5 - Rules().retention_ended_s - 1, "c2")
    stats = count(*records, late, call(6, "connected", 6))
    assert stats.records["dead_lettered", "late"] == 1
    assert stats.templates == {"v2.users.{id}.conversations": 6, "other": 1}
    assert stats.behind_ms == [3_000, 1_000, (Rules().retention_ended_s + 1) * 1_000]


@pytest.mark.parametrize(("event", "skew_ms"), [(CONNECTED, 1_500), (AHEAD, -3_000)])
def test_skew_is_snapshot_time_minus_event_time(event: str, skew_ms: int) -> None:
    assert count_snapshots((SNAPSHOT_MS, {"state": "connected", "providerEventTime": event})).skew_ms == [skew_ms]


def test_snapshot_without_event_times_has_no_skew() -> None:
    assert count_snapshots((SNAPSHOT_MS, {"state": "alerting"})).skew_ms == []


def test_older_snapshot_has_no_skew() -> None:
    """Its correction asserts a known transition again, which is no new event."""
    stats = count_snapshots(
        (SNAPSHOT_MS, {"state": "connected", "providerEventTime": CONNECTED}),
        (SNAPSHOT_MS - 3_000, {"state": "alerting", "providerEventTime": ALERTED}),
    )
    assert stats.retracted == {"cobrowse": 1}
    assert stats.asserted["cobrowse", "alerting", "connected"] == 1
    assert stats.skew_ms == [1_500]
