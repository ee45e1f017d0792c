"""What a lane counts of a record."""

from typing import Any

import msgspec
import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.runtime.tally import Tally

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
