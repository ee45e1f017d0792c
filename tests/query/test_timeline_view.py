"""The view of a conversation: against the published transitions, and at past times."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.query.timeline_view import communications
from schemas.query import CommunicationView
from schemas.state import ConversationState
from tests import model
from tests.core.play import Played, play
from tests.strategies import at, histories
from tests.worker.scenes import call

STATE = msgspec.json.Decoder(ConversationState)
CYCLES_MAX = Rules().park_cycles_max
FIELDS = ("id", "from", "to", "eventTime", "timeClass", "millisecondsInFrom")


def view(played: Played, as_of: str | None = None) -> dict[str, list[CommunicationView]]:
    """The communications of every conversation."""
    return {key: communications(STATE.decode(state), CYCLES_MAX, as_of) for key, state in played.states.items()}


def flatten(views: dict[str, list[CommunicationView]]) -> list[CommunicationView]:
    return [communication for some in views.values() for communication in some]


def transitions(views: dict[str, list[CommunicationView]]) -> dict[str, dict[str, Any]]:
    return {
        transition.id: json.loads(msgspec.json.encode(transition))
        for communication in flatten(views)
        for transition in communication.transitions
    }


@given(histories())
def test_view_has_the_published_standing_transitions(history: list[Record]) -> None:
    played = play(history)
    standing = {key: {name: fields[name] for name in FIELDS} for key, fields in model.net(played.log).items()}
    assert transitions(view(played)) == standing


@given(histories())
def test_view_agrees_with_the_stored_state(history: list[Record]) -> None:
    """State and time of every communication, and how many are live."""
    played = play(history)
    for key, views in view(played).items():
        document = json.loads(played.states[key])
        assert sum(communication.live for communication in views) == document["live"]
        stored = {
            (participant["participantId"], communication["media"], communication["communicationId"]): communication
            for participant in document.get("participants", [])
            for communication in participant.get("communications", [])
            if "communicationId" in communication
        }
        for communication in views:
            uid = (communication.participant_id, communication.media, communication.communication_id)
            assert communication.transitions
            if uid in stored:
                state_and_time = (communication.state, communication.state_time)
                assert state_and_time == (stored[uid]["state"], stored[uid]["stateTime"])
        assert views == sorted(views, key=lambda one: (one.participant_id, one.media, one.communication_id or ""))


@given(histories(), st.data())
def test_past_view_has_exactly_what_had_happened_by_then(history: list[Record], data: st.DataObject) -> None:
    played = play(history)
    now = view(played)
    times = sorted({fields["eventTime"] for fields in transitions(now).values()})
    if not times:
        return
    as_of = data.draw(st.sampled_from([*times, "2010-01-01T00:00:00.000Z"]))
    past = view(played, as_of)
    by_then = {key: fields for key, fields in transitions(now).items() if fields["eventTime"] <= as_of}
    assert transitions(past) == by_then
    for communication in flatten(past):
        last = communication.transitions[-1]
        assert (communication.state, communication.state_time) == (last.to_state, last.event_time)
    assert view(played, times[-1]) == now


def test_a_call_before_during_and_after_its_life() -> None:
    played = play([call(0, "alerting", 1), call(1, "connected", 5), call(2, "disconnected", 9, disconnectType="peer")])

    def summarize(as_of: str | None) -> list[tuple[Any, ...]]:
        return [
            (communication.state, communication.live, communication.disconnect_type, len(communication.transitions))
            for communication in flatten(view(played, as_of))
        ]

    assert [summarize(as_of) for as_of in (at(0.999), at(1), at(4.999), at(5), at(8.999), at(9), None)] == [
        [],
        [("alerting", True, None, 1)],
        [("alerting", True, None, 1)],
        [("connected", True, None, 2)],
        [("connected", True, None, 2)],
        [("disconnected", False, "peer", 3)],
        [("disconnected", False, "peer", 3)],
    ]
