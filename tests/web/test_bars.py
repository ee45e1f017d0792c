"""The timeline of a conversation as bars."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consumer.core import timestamps
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.query.timeline_view import communications
from consumer.web.bars import Picture, draw
from schemas.query import CommunicationView, Timeline
from schemas.state import ConversationState
from schemas.transition import Transition
from tests.core.play import play
from tests.strategies import BASE_MS, at, histories
from tests.worker.scenes import call

STATE = msgspec.json.Decoder(ConversationState)


def views_of(*records: Record, as_of: str | None = None) -> list[CommunicationView]:
    states = play(list(records)).states.values()
    return [view for state in states for view in communications(STATE.decode(state), Rules().park_cycles_max, as_of)]


def picture(views: list[CommunicationView], seconds: float, as_of: str | None = None) -> Picture | None:
    live = sum(view.live for view in views)
    return draw(Timeline(0, "worker", "c1", as_of, live, views), [], BASE_MS + int(seconds * 1_000), 100)


def test_each_state_is_as_wide_as_it_lasted() -> None:
    found = picture(views_of(call(0, "alerting", 0), call(1, "connected", 20)), 100)
    assert found is not None
    assert (found.begin, found.end, found.lasted) == (at(0), at(100), "1 min 40 s")
    (bar,) = found.bars
    assert [(one.state, one.x, one.width, one.lasted, one.fits) for one in bar.segments] == [
        ("alerting", 0, 20, "20.0 s", "wide"),
        ("connected", 20, 80, "1 min 20 s", "everywhere"),
    ]
    assert bar.label == f"alerting from {at(0)}, for 20.0 s; connected from {at(20)}, for 1 min 20 s"


def test_what_is_over_ends_with_a_cap() -> None:
    views = views_of(call(0, "connected", 0), call(1, "disconnected", 50))
    found = picture(views, 1_000)
    assert found is not None
    assert found.end == at(50)
    assert [(one.state, one.x, one.width) for one in found.bars[0].segments] == [
        ("connected", 0, 100), ("disconnected", 99.4, 0.6),
    ]  # fmt: skip


def test_a_past_time_ends_the_picture() -> None:
    records = call(0, "connected", 0), call(1, "disconnected", 50)
    found = picture(views_of(*records, as_of=at(10)), 1_000, at(10))
    assert found is not None
    assert found.end == at(10)
    assert [one.width for one in found.bars[0].segments] == [100]
    assert picture(views_of(*records, as_of=at(-1)), 1_000, at(-1)) is None


def test_a_correction_is_marked_where_the_transition_was() -> None:
    played = play([call(0, "connected", 40), call(1, "alerting", 0), call(2, "connected", 20)])
    operations = [msgspec.json.decode(msgspec.json.encode(entry), type=Transition) for entry in played.log]
    (state,) = played.states.values()
    past = communications(STATE.decode(state), Rules().park_cycles_max, at(30))
    found = draw(Timeline(0, "worker", "c1", at(30), 1, past), operations, BASE_MS + 100_000, 100)
    assert found is not None
    assert found.bars[0].marks == [], "it was of a later time"
    views = communications(STATE.decode(state), Rules().park_cycles_max)
    found = draw(Timeline(0, "worker", "c1", None, 1, views), operations, BASE_MS + 100_000, 100)
    assert found is not None
    assert [(mark.x, mark.label) for mark in found.bars[0].marks] == [
        (40, f"corrected: connected at {at(40)}"),
        (40, f"corrected: alerting → connected at {at(40)}"),
    ]
    before = [replace(operation, op="retract") for operation in operations]
    found = draw(Timeline(0, "worker", "c1", None, 1, views), before + operations, BASE_MS + 100_000, 100)
    assert found is not None
    assert len(found.bars[0].marks) == 2, "what stands again is no correction"


@given(histories(), st.integers(0, 100_000))
def test_no_bar_leaves_the_picture(history: list[Record], later_s: int) -> None:
    for state in play(history).states.values():
        views = communications(STATE.decode(state), Rules().park_cycles_max)
        found = picture(views, later_s)
        assert (found is None) == (not views)
        for bar in found.bars if found else ():
            assert [one.state for one in bar.segments] == [step.to_state for step in bar.view.transitions]
            assert all(one.x >= 0 and one.width > 0 and one.x + one.width <= 100.01 for one in bar.segments)
            assert found is not None
            assert timestamps.to_ms(found.begin) <= timestamps.to_ms(found.end)
