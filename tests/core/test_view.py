"""What people are shown of a conversation: against the published transitions, and at past times."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.view import communications
from schemas.query import CommunicationView
from schemas.state import ConversationState
from tests import model
from tests.core.play import Played, play
from tests.runtime.scenes import call
from tests.strategies import at, histories

STATE = msgspec.json.Decoder(ConversationState)
CYCLES_MAX = Rules().park_cycles_max
SHOWN = ("id", "from", "to", "eventTime", "timeClass", "millisecondsInFrom")


def views(played: Played, as_of: str | None = None) -> dict[str, list[CommunicationView]]:
    return {key: communications(STATE.decode(state), CYCLES_MAX, as_of) for key, state in played.states.items()}


def flat(found: dict[str, list[CommunicationView]]) -> list[CommunicationView]:
    return [each for shown in found.values() for each in shown]


def transitions(found: dict[str, list[CommunicationView]]) -> dict[str, dict[str, Any]]:
    return {each.id: json.loads(msgspec.json.encode(each)) for view in flat(found) for each in view.transitions}


@given(histories())
def test_the_transitions_shown_are_those_that_stand_under_the_ids_under_which_they_were_published(
    history: list[Record],
) -> None:
    played = play(history)
    standing = {key: {name: each[name] for name in SHOWN} for key, each in model.net(played.log).items()}
    assert transitions(views(played)) == standing


@given(histories())
def test_the_state_shown_is_the_one_that_is_stored_and_live_ones_are_as_many_as_are_counted(
    history: list[Record],
) -> None:
    played = play(history)
    for key, shown in views(played).items():
        document = json.loads(played.states[key])
        assert sum(each.live for each in shown) == document["live"]
        stored = {
            (who["participantId"], each["media"], each["communicationId"]): each
            for who in document.get("participants", [])
            for each in who.get("communications", [])
            if "communicationId" in each
        }
        for view in shown:
            uid = (view.participant_id, view.media, view.communication_id)
            assert view.transitions
            if uid in stored:
                assert (view.state, view.state_time) == (stored[uid]["state"], stored[uid]["stateTime"])
        order = [(each.participant_id, each.media, each.communication_id or "") for each in shown]
        assert order == sorted(order)


@given(histories(), st.data())
def test_at_a_past_time_there_is_what_had_happened_by_then_and_nothing_else(
    history: list[Record], data: st.DataObject
) -> None:
    played = play(history)
    now = views(played)
    times = sorted({each["eventTime"] for each in transitions(now).values()})
    if not times:
        return
    as_of = data.draw(st.sampled_from([*times, "2010-01-01T00:00:00.000Z"]))
    then = views(played, as_of)
    assert transitions(then) == {key: each for key, each in transitions(now).items() if each["eventTime"] <= as_of}
    for view in flat(then):
        assert (view.state, view.state_time) == (view.transitions[-1].to_state, view.transitions[-1].event_time)
    assert views(played, times[-1]) == now


def test_a_call_before_while_and_after_it_lived() -> None:
    played = play([call(0, "alerting", 1), call(1, "connected", 5), call(2, "disconnected", 9, disconnectType="peer")])
    shown = [
        [(each.state, each.live, each.disconnect_type, len(each.transitions)) for each in flat(views(played, moment))]
        for moment in (at(0.999), at(1), at(4.999), at(5), at(8.999), at(9), None)
    ]
    assert shown == [
        [],
        [("alerting", True, None, 1)],
        [("alerting", True, None, 1)],
        [("connected", True, None, 2)],
        [("connected", True, None, 2)],
        [("disconnected", False, "peer", 3)],
        [("disconnected", False, "peer", 3)],
    ]
