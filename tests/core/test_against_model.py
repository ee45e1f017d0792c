"""The core and the independent model say the same, of any set of records in any order."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.step import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.simulator.traffic import Traffic, records
from tests import model
from tests.core.play import Played, play
from tests.strategies import BASE_MS, at, histories, make_record, noise

RULES = model.Rules(record_bytes_max=4_194_304)


def standing_by_id(recorded: list[Record]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for found in model.standing(recorded, RULES).values() for each in found}


def assert_equals_model(played: Played, recorded: list[Record]) -> None:
    assert played.documents() == model.conversations(recorded, RULES)
    model.check_log(played.log)
    assert model.net(played.log) == standing_by_id(recorded)


@given(histories(), st.randoms(use_true_random=False))
def test_any_order_and_any_duplication_gives_what_the_model_says(history: list[Record], chance: random.Random) -> None:
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
    shown = [each.participant_id for each in verdict.participants] if isinstance(verdict, model.Sight) else []
    return len(set(shown)) < len(shown)


@given(histories())
def test_an_assertion_tells_what_was_known_when_it_was_made(history: list[Record]) -> None:
    """Also what was known only from an entry of the flat shape that had joined the communication.

    A record that lists a participant twice is two steps, and the first does not know of the second.
    """
    for number, outcome in enumerate(play(history).outcomes, 1):
        if lists_twice(history[number - 1]):
            continue
        asserted = {each.id: msgspec.to_builtins(each.context) for each in outcome.transitions if each.op == "assert"}
        expected = model.contexts(history[:number], RULES) if asserted else {}
        assert asserted == {each: expected[each] for each in asserted}


@given(histories(), st.randoms(use_true_random=False))
def test_it_makes_no_difference_whether_a_state_was_in_memory_or_read_back(
    history: list[Record], chance: random.Random
) -> None:
    repeated = [record for record in history for _ in range(chance.randint(1, 2))]
    chance.shuffle(repeated)
    in_memory, restored = play(repeated), play(repeated, restored=True)
    assert in_memory.states == restored.states
    assert in_memory.log == restored.log
    assert [each.disposition for each in in_memory.outcomes] == [each.disposition for each in restored.outcomes]


@pytest.mark.parametrize("where", ["participant", "communication"])
@pytest.mark.parametrize("between", [[("a", 10), ("b", 5)], [("b", 5), ("a", 10)], [("b", 5), ("a", 10), ("b", 7)]])
def test_a_participant_that_is_shown_again_as_it_was_before_others_had_their_say_is_news(
    between: list[tuple[str, int]], where: str
) -> None:
    recorded = []
    for offset, (value, seconds) in enumerate([*between, ("b", 20)]):
        leg = {"id": "m1", "state": "connected"} | ({"peer": value} if where == "communication" else {})
        who = {"id": "p1", "calls": [leg]} | ({"userId": value} if where == "participant" else {})
        recorded.append(make_record({"id": "c1", "participants": [who]}, seconds=seconds, offset=offset))
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


def test_a_detail_that_is_shown_again_at_the_time_of_a_showing_without_it_is_as_new() -> None:
    recorded = []
    for offset, (held, seconds) in enumerate([(True, 5), (None, 10), (True, 10)]):
        leg = {"id": "m1", "state": "alerting", "held": held}
        body = {"id": "c1", "participants": [{"id": "p1", "calls": [leg]}]}
        recorded.append(make_record(body, seconds=seconds, offset=offset))
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


@pytest.mark.parametrize("held", [True, None])
def test_what_is_shown_again_of_a_communication_that_had_ended_is_news(held: bool | None) -> None:  # noqa: FBT001
    """Its details belong to an earlier state than the one that stands, however new the snapshot is."""
    legs: list[dict[str, Any]] = [{"id": "m1", "state": "disconnected", "disconnectedTime": at(4), "held": held}]
    legs += [{"id": "m1", "state": "connected", "held": False, "muted": True}] * 3
    recorded = [
        make_record({"id": "c1", "participants": [{"id": "p1", "calls": [leg]}]}, seconds=10 * offset, offset=offset)
        for offset, leg in enumerate(legs, 1)
    ]
    for restored in (False, True):
        assert_equals_model(play(recorded, restored=restored), recorded)


def test_a_communication_that_is_listed_twice_is_one() -> None:
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
def test_noise_gets_the_disposition_the_model_gives_it(value: bytes | None) -> None:
    record = Record("in", 0, 0, BASE_MS, b"c1", value)
    outcome = play([record]).outcomes[0]
    match model.judge(record, RULES):
        case model.Ignored(reason):
            assert (outcome.disposition, outcome.reason) == ("ignored", reason)
        case model.Rejected(reason, reasons):
            assert outcome.disposition == "dead_lettered"
            # Brackets are counted before the value is parsed: one that is broken as well may be called too deep.
            assert outcome.reason in reasons | {reason} | ({"too_deep", "too_large"} if reason == "bad_json" else set())
        case _:
            assert outcome.disposition == "applied"
    assert outcome.reason in {"", *IGNORED_REASONS, *DEAD_LETTER_REASONS} - {"internal_error"}


def test_generated_traffic_gives_what_the_model_says() -> None:
    stream = records(Traffic(seed=7, conversations=30, broken=0.05))
    recorded = [
        Record("in", 0, offset, draft.timestamp_ms, draft.key, draft.value)
        for offset, draft in zip(range(1_500), stream, strict=False)
    ]
    played = play(recorded)
    assert sum(outcome.disposition == "dead_lettered" for outcome in played.outcomes) > 20
    assert_equals_model(played, recorded)
