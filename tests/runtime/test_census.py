"""Counts over the committed states: the same whether they come from changes or from a restore."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given

from consumer.core.known import summary
from consumer.core.record import Record
from consumer.runtime.census import Census
from schemas.state import Summary
from tests.core.play import Played, play
from tests.runtime.scenes import call
from tests.strategies import NESTED_TOPICS, at, histories, make_record, websocket


def changed(played: Played) -> Census:
    """Counts that follow every change of a state."""
    census = Census()
    before: dict[str, Summary] = {}
    for outcome in played.outcomes:
        if outcome.known is not None:
            after = summary(outcome.known.published)
            census.replace(outcome.conversation_id, before.get(outcome.conversation_id), after)
            before[outcome.conversation_id] = after
    return census


def restored(states: dict[str, bytes]) -> Census:
    census = Census()
    for conversation_id, state in states.items():
        census.replace(conversation_id, None, summary(state))
    return census


def counted_by_hand(states: Iterable[bytes]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for state in states:
        for participant in json.loads(state).get("participants", []):
            for each in participant.get("communications", []):
                if "state" in each:
                    found[each["media"], each["state"]] = found.get((each["media"], each["state"]), 0) + 1
    return found


def message(offset: int, state: str, seconds: float, participant_id: str, **shown: Any) -> Record:
    communication = {"id": "m1", "state": state} | shown
    body = {"id": "c1", "participants": [{"id": participant_id, "messages": [communication]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=offset)


STORY = [
    call(0, "alerting", 1),
    call(1, "connected", 3, "c2"),
    call(2, "connected", 5),
    message(3, "connected", 4, "p2"),
    message(4, "disconnected", 9, "p3"),
    call(5, "disconnected", 8, "c2"),
]


@pytest.mark.parametrize("source", ["changes", "restore"])
def test_the_communications_in_each_state_and_the_oldest_live_one(source: str) -> None:
    played = play(STORY)
    census = changed(played) if source == "changes" else restored(played.states)
    assert census.states == {
        ("call", "connected"): 1,
        ("call", "disconnected"): 1,
        ("message", "connected"): 1,
        ("message", "disconnected"): 1,
    }
    assert census.oldest_live() == {"call": at(1), "message": at(4)}


def test_the_next_oldest_follows_when_the_oldest_ends() -> None:
    played = play(STORY[:3])
    assert changed(played).oldest_live() == {"call": at(1)}
    played = play([*STORY[:3], call(6, "disconnected", 9)])
    assert changed(played).oldest_live() == {"call": at(3)}
    played = play([*STORY[:3], call(6, "disconnected", 9), call(7, "terminated", 10, "c2")])
    assert changed(played).oldest_live() == {}


def test_a_state_that_nobody_knows_is_live_until_it_shows_an_end() -> None:
    played = play([call(0, "vanished", 1)])
    assert changed(played).oldest_live() == restored(played.states).oldest_live() == {"call": at(1)}
    played = play([call(0, "vanished", 1, disconnectedTime=at(1))])
    assert changed(played).oldest_live() == restored(played.states).oldest_live() == {}


def test_of_states_that_nobody_is_in_any_more_nothing_is_kept() -> None:
    played = play([call(number, f"unheard-of-{number}", number) for number in range(5)])
    assert changed(played).states == {("call", "unheard-of-4"): 1}


@given(histories())
def test_changes_and_a_restore_count_the_same(history: list[Record]) -> None:
    played = play(history)
    assert changed(played).states == restored(played.states).states == counted_by_hand(played.states.values())


@given(histories())
def test_changes_and_a_restore_find_the_same_oldest(history: list[Record]) -> None:
    played = play(history)
    assert changed(played).oldest_live() == restored(played.states).oldest_live()


@given(histories())
def test_removing_every_state_leaves_nothing(history: list[Record]) -> None:
    played = play(history)
    census = changed(played)
    for conversation_id, state in played.states.items():
        census.replace(conversation_id, summary(state), None)
    assert census.states == {}
    assert census.oldest_live() == {}
