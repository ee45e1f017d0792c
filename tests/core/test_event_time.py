"""Which time dates the state that a record shows, and which earlier states its times imply."""

import pytest

from consumer.core.event_time import CONTROL_CHANGE_MS, EventTimes, TimeReader, observe
from consumer.core.lifecycle import RANKS
from schemas.inbound import WireTime
from schemas.state import TimeClass
from tests.strategies import at

CONTROL_CHANGE_S = CONTROL_CHANGE_MS / 1_000


def times(
    provider: float = 0, alerting: float = 0, connected: float = 0, disconnected: float = 0, parked: float = 0
) -> EventTimes:
    """Times in seconds; 0 for one that is not shown."""
    shown = (provider, alerting, connected, disconnected, parked)
    return EventTimes(*(at(seconds) if seconds else "" for seconds in shown))


@pytest.mark.parametrize(
    ("state", "shown", "seconds", "time_class"),
    [
        ("alerting", times(provider=3), 3, "provider"),
        ("alerting", times(provider=3, alerting=2), 3, "provider"),
        ("alerting", times(alerting=2, connected=5), 2, "state"),
        ("dialing", times(alerting=2), None, "snapshot"),
        ("alerting", times(), None, "snapshot"),
        ("connected", times(provider=7, connected=5), 7, "provider"),
        ("connected", times(provider=5 + CONTROL_CHANGE_S, connected=5), 5 + CONTROL_CHANGE_S, "provider"),
        ("connected", times(provider=5.001 + CONTROL_CHANGE_S, connected=5), 5, "state"),
        ("connected", times(provider=1, connected=5), 1, "provider"),
        ("connected", times(connected=5), 5, "state"),
        ("connected", times(connected=5, parked=9), None, "snapshot"),
        ("connected", times(connected=9, parked=5), 9, "state"),
        ("connected", times(connected=5, parked=5), 5, "state"),
        ("parked", times(connected=5, parked=9), 9, "state"),
        ("transmitting", times(connected=5), None, "snapshot"),
        ("disconnected", times(connected=5, disconnected=8), 8, "state"),
        ("disconnected", times(connected=5), None, "snapshot"),
        ("terminated", times(provider=20, disconnected=8), 8, "state"),
    ],
)
def test_the_state_shown_has_the_first_usable_time(
    state: str, shown: EventTimes, seconds: float | None, time_class: TimeClass
) -> None:
    first, *_ = observe(state, RANKS[state], "", shown)
    assert (first.state, first.time, first.time_class) == (state, "" if seconds is None else at(seconds), time_class)


@pytest.mark.parametrize(
    ("state", "cycle", "shown", "implied"),
    [
        ("alerting", "", times(connected=5, disconnected=8, parked=6), []),
        ("alerting", "", times(alerting=3), []),
        ("dialing", "", times(alerting=3), [("alerting", 3, "")]),
        ("connected", "", times(alerting=3, connected=5), [("alerting", 3, "")]),
        ("disconnected", "", times(alerting=3, disconnected=8), [("alerting", 3, "")]),
        ("connected", "", times(connected=5), []),
        ("connected", at(6), times(connected=5, parked=6), [("connected", 5, ""), ("parked", 6, at(6))]),
        ("parked", at(6), times(connected=5, parked=6), [("connected", 5, ""), ("parked", 6, at(6))]),
        ("disconnected", "", times(connected=5, disconnected=8), [("connected", 5, "")]),
        ("terminated", "", times(connected=5, disconnected=8), [("connected", 5, ""), ("disconnected", 8, "")]),
        ("terminated", "", times(), []),
    ],
)
def test_times_imply_earlier_states(
    state: str, cycle: str, shown: EventTimes, implied: list[tuple[str, float, str]]
) -> None:
    _, *others = observe(state, RANKS[state], cycle, shown)
    assert [(other.state, other.time, other.cycle) for other in others] == [
        (name, at(seconds), other_cycle) for name, seconds, other_cycle in implied
    ]
    assert {other.time_class for other in others} <= {"state"}


@pytest.mark.parametrize(
    ("wire", "time", "implausible"),
    [
        (at(10), at(10), 0),
        (at(10.001), "", 1),
        ("2009-12-31T23:59:59.999Z", "", 1),
        ("soon", "", 1),
        (0, "", 1),
        ("", "", 0),
        (None, "", 0),
    ],
)
def test_reader_counts_implausible_times(wire: WireTime, time: str, implausible: int) -> None:
    """An absent time is none of them."""
    reader = TimeReader(latest=at(10))
    assert (reader.read(wire), reader.implausible) == (time, implausible)
    assert reader.newest == time


@pytest.mark.parametrize(
    ("wire", "time", "implausible"),
    [(at(10.001), at(10.001), 0), ("2009-12-31T23:59:59.999Z", "", 1), ("soon", "", 1), ("", "", 0), (None, "", 0)],
)
def test_a_plan_may_lie_in_the_future_and_dates_nothing(wire: WireTime, time: str, implausible: int) -> None:
    reader = TimeReader(latest=at(10))
    assert (reader.read_plan(wire), reader.implausible, reader.newest) == (time, implausible, "")
