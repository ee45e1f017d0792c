"""The live index counts the same after changes as after a restore."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.state_codec import summary
from consumer.engine.live_index import LiveIndex
from schemas.state import Summary
from tests.core.play import Played, play
from tests.strategies import NESTED_TOPICS, at, histories, make_record, websocket
from tests.worker.scenes import call


def follow(played: Played) -> LiveIndex:
    """An index that followed every change of a state."""
    live_index = LiveIndex()
    before: dict[str, Summary] = {}
    for outcome in played.outcomes:
        if isinstance(outcome, Applied):
            after = summary(outcome.stored.published)
            live_index.replace(outcome.conversation_id, before.get(outcome.conversation_id), after)
            before[outcome.conversation_id] = after
    return live_index


def restore(states: dict[str, bytes]) -> LiveIndex:
    live_index = LiveIndex()
    for conversation_id, state in states.items():
        live_index.replace(conversation_id, None, summary(state))
    return live_index


def count_states(states: Iterable[bytes]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for state in states:
        for participant in json.loads(state).get("participants", []):
            for communication in participant.get("communications", []):
                if "state" in communication:
                    key = communication["media"], communication["state"]
                    counts[key] = counts.get(key, 0) + 1
    return counts


def message(offset: int, state: str, seconds: float, participant_id: str, **fields: Any) -> Record:
    communication = {"id": "m1", "state": state} | fields
    body = {"id": "c1", "participants": [{"id": participant_id, "messages": [communication]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=offset)


RECORDS = [
    call(0, "alerting", 1),
    call(1, "connected", 3, "c2"),
    call(2, "connected", 5),
    message(3, "connected", 4, "p2"),
    message(4, "disconnected", 9, "p3"),
    call(5, "disconnected", 8, "c2"),
]


@pytest.mark.parametrize("source", ["changes", "restore"])
def test_counts_per_state_and_the_oldest_live_communication(source: str) -> None:
    played = play(RECORDS)
    live_index = follow(played) if source == "changes" else restore(played.states)
    assert live_index.states == {
        ("call", "connected"): 1,
        ("call", "disconnected"): 1,
        ("message", "connected"): 1,
        ("message", "disconnected"): 1,
    }
    assert live_index.oldest_live() == {"call": at(1), "message": at(4)}


def test_next_oldest_follows_when_the_oldest_ends() -> None:
    played = play(RECORDS[:3])
    assert follow(played).oldest_live() == {"call": at(1)}
    played = play([*RECORDS[:3], call(6, "disconnected", 9)])
    assert follow(played).oldest_live() == {"call": at(3)}
    played = play([*RECORDS[:3], call(6, "disconnected", 9), call(7, "terminated", 10, "c2")])
    assert follow(played).oldest_live() == {}


def test_unknown_state_is_live_until_it_has_an_end_time() -> None:
    played = play([call(0, "vanished", 1)])
    assert follow(played).oldest_live() == restore(played.states).oldest_live() == {"call": at(1)}
    played = play([call(0, "vanished", 1, disconnectedTime=at(1))])
    assert follow(played).oldest_live() == restore(played.states).oldest_live() == {}


def test_states_without_communications_are_dropped() -> None:
    played = play([call(number, f"unheard-of-{number}", number) for number in range(5)])
    assert follow(played).states == {("call", "unheard-of-4"): 1}


@given(histories())
def test_changes_and_a_restore_count_the_same(history: list[Record]) -> None:
    played = play(history)
    assert follow(played).states == restore(played.states).states == count_states(played.states.values())


@given(histories())
def test_changes_and_a_restore_find_the_same_oldest(history: list[Record]) -> None:
    played = play(history)
    assert follow(played).oldest_live() == restore(played.states).oldest_live()


@given(histories())
def test_removing_every_state_leaves_nothing(history: list[Record]) -> None:
    played = play(history)
    live_index = follow(played)
    for conversation_id, state in played.states.items():
        live_index.replace(conversation_id, summary(state), None)
    assert live_index.states == {}
    assert live_index.oldest_live() == {}
