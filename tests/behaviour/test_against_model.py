"""The core agrees with the independent model on any set of records in any order."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.outcomes import Applied
from consumer.core.reasons import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records
from tests import model
from tests.core.play import Played, play
from tests.strategies import BASE_MS, at, histories, make_record, noise

RULES = model.Rules(record_bytes_max=4_194_304)


def standing_by_id(recorded: list[Record]) -> dict[str, dict[str, Any]]:
    return {
        transition["id"]: transition
        for transitions in model.standing(recorded, RULES).values()
        for transition in transitions
    }


def assert_equals_model(played: Played, recorded: list[Record]) -> None:
    assert played.documents() == model.conversations(recorded, RULES)
    model.check_log(played.log)
    assert model.net(played.log) == standing_by_id(recorded)


@given(histories(), st.randoms(use_true_random=False))
def test_any_order_and_duplication_agree_with_the_model(history: list[Record], chance: random.Random) -> None:
    in_order = play(history)
    assert_equals_model(in_order, history)
    disordered = history + chance.choices(history, k=3)
    chance.shuffle(disordered)
    again = play(disordered)
    assert again.documents() == in_order.documents()
    assert_equals_model(again, history)


def lists_twice(record: Record) -> bool:
    """Whether a record shows a participant more than once."""
    verdict = model.judge(record, RULES)
    participants = verdict.participants if isinstance(verdict, model.Snapshot) else []
    return len({participant.participant_id for participant in participants}) < len(participants)


@given(histories())
def test_context_of_an_assertion_is_what_was_known_then(history: list[Record]) -> None:
    """Values known only from a flat entry that had joined the communication count as well.

    A record that lists a participant twice is left out: the model applies its entries one after the other.
    """
    for number, outcome in enumerate(play(history).outcomes, 1):
        if not isinstance(outcome, Applied) or lists_twice(history[number - 1]):
            continue
        asserted = {
            transition.id: msgspec.to_builtins(transition.context)
            for transition in outcome.transitions
            if transition.op == "assert"
        }
        expected = model.contexts(history[:number], RULES) if asserted else {}
        assert asserted == {transition_id: expected[transition_id] for transition_id in asserted}


@given(histories(), st.randoms(use_true_random=False))
def test_restored_states_give_the_same_as_states_in_memory(history: list[Record], chance: random.Random) -> None:
    repeated = [record for record in history for _ in range(chance.randint(1, 2))]
    chance.shuffle(repeated)
    in_memory, restored = play(repeated), play(repeated, restored=True)
    assert in_memory.states == restored.states
    assert in_memory.log == restored.log
    assert [outcome.disposition for outcome in in_memory.outcomes] == [
        outcome.disposition for outcome in restored.outcomes
    ]


@pytest.mark.parametrize("where", ["participant", "communication"])
@pytest.mark.parametrize("between", [[("a", 10), ("b", 5)], [("b", 5), ("a", 10)], [("b", 5), ("a", 10), ("b", 7)]])
def test_repeated_participant_counts_as_an_update(between: list[tuple[str, int]], where: str) -> None:
    """A value that returns after another value replaced it is news, though the update equals an earlier one."""
    recorded = []
    for offset, (value, seconds) in enumerate([*between, ("b", 20)]):
        leg = {"id": "m1", "state": "connected"} | ({"peer": value} if where == "communication" else {})
        participant = {"id": "p1", "calls": [leg]} | ({"userId": value} if where == "participant" else {})
        recorded.append(make_record({"id": "c1", "participants": [participant]}, seconds=seconds, offset=offset))
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


def test_detail_returns_at_the_time_of_an_update_without_it() -> None:
    """Two snapshots of one time: the detail that only one of them shows has that time as its version."""
    recorded = []
    for offset, (held, seconds) in enumerate([(True, 5), (None, 10), (True, 10)]):
        leg = {"id": "m1", "state": "alerting", "held": held}
        body = {"id": "c1", "participants": [{"id": "p1", "calls": [leg]}]}
        recorded.append(make_record(body, seconds=seconds, offset=offset))
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


@pytest.mark.parametrize("held", [True, None])
def test_repeated_update_of_an_ended_communication(held: bool | None) -> None:  # noqa: FBT001
    """It is never answered from the cache: its details belong to an earlier state, however new the snapshot is."""
    legs: list[dict[str, Any]] = [{"id": "m1", "state": "disconnected", "disconnectedTime": at(4), "held": held}]
    legs += [{"id": "m1", "state": "connected", "held": False, "muted": True}] * 3
    recorded = [
        make_record({"id": "c1", "participants": [{"id": "p1", "calls": [leg]}]}, seconds=10 * offset, offset=offset)
        for offset, leg in enumerate(legs, 1)
    ]
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


def test_a_communication_listed_twice_is_one() -> None:
    legs = [{"id": "m1", "state": "alerting", "held": True}, {"id": "m1", "state": "connected", "connectedTime": at(5)}]
    body = {"id": "c1", "participants": [{"id": "p1", "calls": legs}, {"id": "p1", "calls": legs[:1]}]}
    recorded = [make_record(body, seconds=seconds, offset=seconds) for seconds in (7, 9)]
    played = play(recorded)
    assert_equals_model(played, recorded)
    assert json.loads(played.states["c1"])["communications"] == {"call": {"connected": 1}}


@given(histories())
def test_a_repeated_record_changes_nothing(history: list[Record]) -> None:
    played = play([*history, *history])
    for outcome in played.outcomes[len(history) :]:
        assert outcome.disposition in {"unchanged", "ignored", "dead_lettered"}


@given(noise)
def test_noise_gets_the_disposition_of_the_model(value: bytes | None) -> None:
    record = Record("in", 0, 0, BASE_MS, b"c1", value)
    outcome = play([record]).outcomes[0]
    match model.judge(record, RULES):
        case model.Ignored(reason):
            assert (outcome.disposition, outcome.reason) == ("ignored", reason)
        case model.Rejected(reason, reasons):
            assert outcome.disposition == "dead_lettered"
            # Brackets are counted before the value is parsed, so a broken value may be rejected as too deep.
            assert outcome.reason in reasons | {reason} | ({"too_deep", "too_large"} if reason == "bad_json" else set())
        case _:
            assert outcome.disposition == "applied"
    assert outcome.reason in {"", *IGNORED_REASONS, *DEAD_LETTER_REASONS} - {"internal_error"}


def test_generated_traffic_agrees_with_the_model() -> None:
    stream = records(Traffic(seed=7, conversations=30, broken=0.05))
    recorded = [
        Record("in", 0, offset, draft.timestamp_ms, draft.key, draft.value)
        for offset, draft in zip(range(1_500), stream, strict=False)
    ]
    played = play(recorded)
    assert sum(outcome.disposition == "dead_lettered" for outcome in played.outcomes) > 20
    assert_equals_model(played, recorded)
