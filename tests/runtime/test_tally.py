"""What a lane counts of a record."""

from typing import Any

import msgspec
import pytest

from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.runtime.tally import Tally
from tests.runtime.scenes import call, heartbeat, rubbish
from tests.strategies import BASE_MS, make_record

SNAPSHOT_MS = 1_767_261_610_000
CONNECTED = "2026-01-01T10:00:08.500Z"
AHEAD = "2026-01-01T10:00:13.000Z"
ALERTED = "2026-01-01T10:00:06.000Z"


def told(*snapshots: tuple[int, dict[str, Any]]) -> Tally:
    """The tally of snapshots of one co-browse session, each with its time."""
    tally, state = Tally(), None
    for at_ms, session in snapshots:
        body = {"id": "c", "participants": [{"id": "p", "cobrowsesessions": [{"id": "s", **session}]}]}
        record = Record("updates", 0, 0, at_ms, b"c", msgspec.json.encode(body))
        outcome = step(record, Rules(), None, lambda _, known=state: known)  # type: ignore[misc]
        tally.add(record, outcome, None, at_ms)
        state = outcome.known or state
    assert tally.records["applied", ""] == len(snapshots)
    return tally


def counted(*records: Record, rules: Rules | None = None) -> Tally:
    """The tally of records as a lane counts them, ten seconds after the start."""
    tally, known, stream_ms = Tally(), dict[str, Known](), None
    for record in records:
        outcome = step(record, rules or Rules(), stream_ms, known.get)
        tally.add(record, outcome, stream_ms, BASE_MS + 10_000)
        stream_ms = outcome.stream_ms
        if outcome.known is not None:
            known[outcome.conversation_id] = outcome.known
    return tally


def test_each_record_is_counted_with_its_topic_its_bytes_and_what_is_odd_about_it() -> None:
    tombstone = Record("updates", 0, 9, BASE_MS, b"c1", None)
    unkeyed = make_record({"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1"}]}]}, key=None)
    shown = [call(0, "alerting", 1), call(1, "alerting", 1), heartbeat(2), rubbish(3), tombstone, unkeyed]
    tally = counted(*shown, rules=Rules(key_mismatch="apply"))
    assert tally.records == {
        ("applied", ""): 1,
        ("unchanged", ""): 2,
        ("ignored", "heartbeat"): 1,
        ("ignored", "tombstone"): 1,
        ("dead_lettered", "bad_json"): 1,
    }
    assert tally.consumed == len(shown)
    assert tally.templates["v2.users.{id}.conversations"] == 2
    assert tally.templates.total() == len(shown)
    assert tally.record_bytes == sum(len(record.value or b"") for record in shown)
    assert tally.notes == {"communication_without_state": 1, "key_missing": 1}


def test_a_life_is_counted_with_the_time_to_connect_its_duration_and_why_it_ended() -> None:
    tally = counted(
        call(0, "alerting", 1),
        call(1, "connected", 5),
        call(2, "disconnected", 12, disconnectType="peer"),
        call(3, "terminated", 12, disconnectType="peer"),
    )
    assert tally.asserted == {
        ("call", "", "alerting"): 1,
        ("call", "alerting", "connected"): 1,
        ("call", "connected", "disconnected"): 1,
        ("call", "disconnected", "terminated"): 1,
    }
    assert tally.time_classes == {("call", "snapshot"): 1, ("call", "state"): 3}
    assert tally.retracted == {}
    assert (tally.connect_ms, tally.duration_ms) == ([("call", 4_000)], [("call", 7_000)])
    assert tally.disconnects == {("call", "peer"): 1}


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
def test_what_a_life_lacks_is_not_counted_and_nothing_twice(
    states: list[str], connect_ms: list[int], duration_ms: list[int], ends: int
) -> None:
    tally = counted(*(call(second, state, second) for second, state in enumerate(states)))
    assert tally.connect_ms == [("call", each) for each in connect_ms]
    assert tally.duration_ms == [("call", each) for each in duration_ms]
    assert tally.disconnects == ({("call", ""): ends} if ends else {})


def test_whatever_ends_a_communication_is_its_end() -> None:
    tally = told((SNAPSHOT_MS, {"state": "terminated", "providerEventTime": CONNECTED, "disconnectType": "timeout"}))
    assert tally.asserted == {("cobrowse", "", "terminated"): 1}
    assert (tally.disconnects, tally.duration_ms) == ({("cobrowse", "timeout"): 1}, [])


def test_a_beginning_that_comes_late_corrects_transitions_but_counts_no_second_connection() -> None:
    tally = counted(call(0, "connected", 5), call(1, "disconnected", 9), call(2, "alerting", 1))
    assert tally.retracted == {"call": 2}
    assert (tally.connect_ms, tally.duration_ms, tally.disconnects) == ([], [("call", 4_000)], {("call", ""): 1})


def test_the_age_of_a_record_is_the_time_since_its_timestamp_if_it_has_one() -> None:
    unstamped = [
        msgspec.structs.replace(call(offset, "alerting", offset), timestamp_ms=timestamp_ms)
        for offset, timestamp_ms in enumerate((-1, 0, 1, SNAPSHOT_MS // 1_000, SNAPSHOT_MS * 1_000), 2)
    ]
    assert counted(call(0, "alerting", 1), rubbish(1, 4), *unstamped, call(9, "connected", 12)).ages_ms == [
        9_000,
        6_000,
        -2_000,
    ]


def test_a_snapshot_dated_by_its_newest_event_has_no_skew() -> None:
    dated = counted(call(0, "connected", 5))
    undated = counted(msgspec.structs.replace(call(0, "connected", 5), timestamp_ms=-1))
    assert (len(dated.skew_ms), undated.skew_ms) == (1, [])
    assert (dated.notes, undated.notes) == ({}, {"time_of_body": 1})


def test_how_far_a_record_is_out_of_order_is_measured_against_the_stream_time_before_it() -> None:
    shown = [call(0, "alerting", 5), call(1, "alerting", 5), call(2, "alerting", 2), rubbish(3), call(4, "alerting", 4)]
    late = call(5, "alerting", 5 - Rules().retention_ended_s - 1, "c2")
    tally = counted(*shown, late, call(6, "connected", 6))
    assert tally.records["dead_lettered", "late"] == 1
    assert tally.templates == {"v2.users.{id}.conversations": 6, "other": 1}
    assert tally.behind_ms == [3_000, 1_000, (Rules().retention_ended_s + 1) * 1_000]


@pytest.mark.parametrize(("event", "skew_ms"), [(CONNECTED, 1_500), (AHEAD, -3_000)])
def test_the_event_time_is_held_against_its_snapshot(event: str, skew_ms: int) -> None:
    assert told((SNAPSHOT_MS, {"state": "connected", "providerEventTime": event})).skew_ms == [skew_ms]


def test_a_snapshot_without_a_time_of_its_own_says_nothing_of_clocks() -> None:
    assert told((SNAPSHOT_MS, {"state": "alerting"})).skew_ms == []


def test_an_older_snapshot_says_nothing_of_clocks_although_it_asserts_anew_what_was_known() -> None:
    tally = told(
        (SNAPSHOT_MS, {"state": "connected", "providerEventTime": CONNECTED}),
        (SNAPSHOT_MS - 3_000, {"state": "alerting", "providerEventTime": ALERTED}),
    )
    assert tally.retracted == {"cobrowse": 1}
    assert tally.asserted["cobrowse", "alerting", "connected"] == 1
    assert tally.skew_ms == [1_500]
