"""A communication that is parked more often than is kept: what falls out is retracted, what follows it stands."""

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from tests import model
from tests.core.play import Played, play
from tests.strategies import NESTED_TOPICS, at, make_record, placed, websocket

STEP_S = 100


def shown(array: str, state: str, seconds: float, park: int | None, **more: Any) -> Record:
    """A thread in some state, with the time of its latest park."""
    leg = {"id": "m1", "state": state, "connectedTime": at(1), **more}
    if park is not None:
        leg["parkTime"] = at(park * STEP_S)
    body = {"id": "c1", "participants": [{"id": "p1", array: [leg]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds)


def parked(cycle: int) -> Record:
    return shown("messages", "parked", cycle * STEP_S + 1, cycle)


def resumed(cycle: int, state: str = "connected") -> Record:
    return shown("messages", state, cycle * STEP_S + 50, cycle)


def thread(cycles: int) -> list[Record]:
    """A thread that is parked and resumed so often."""
    steps = [step for cycle in range(1, cycles + 1) for step in (parked(cycle), resumed(cycle))]
    return placed([shown("messages", "connected", 1, None), *steps])


def operations(played: Played, offset: int) -> list[tuple[str, str, str]]:
    return [(each["op"], each["to"], each["eventTime"]) for each in played.log if each["source"]["offset"] == offset]


def assert_equals_model(played: Played, recorded: list[Record], cycles_max: int) -> None:
    rules = model.Rules(park_cycles_max=cycles_max)
    assert played.documents() == model.conversations(recorded, rules)
    model.check_log(played.log, parks_fall_out=True)
    assert model.net(played.log) == {each["id"]: each for each in model.standing(recorded, rules)["c1"]}


@pytest.mark.parametrize("cycles_max", [2, 3, Rules().park_cycles_max])
def test_a_park_beyond_the_cap_retracts_what_falls_out(cycles_max: int) -> None:
    """It is asserted, and the second of those that stood is retracted with its resume; nothing else is told."""
    recorded = thread(cycles_max + 5)
    played = play(recorded, Rules(park_cycles_max=cycles_max))
    for cycle in range(cycles_max + 1, cycles_max + 6):
        out = cycle - cycles_max + 1
        assert operations(played, 2 * cycle - 1) == [
            ("retract", "connected", at(out * STEP_S + 50)),
            ("retract", "parked", at(out * STEP_S)),
            ("assert", "parked", at(cycle * STEP_S)),
        ]
        assert operations(played, 2 * cycle) == [("assert", "connected", at(cycle * STEP_S + 50))]
    assert Counter(each["op"] for each in played.log)["retract"] == 2 * 5
    assert_equals_model(played, recorded, cycles_max)


def test_what_follows_a_park_that_fell_out_lasted_as_long() -> None:
    """The time in the state before a park is counted from the resume before, though that has fallen out."""
    recorded = thread(9)
    standing = model.net(play(recorded, Rules(park_cycles_max=4)).log).values()
    assert [each["millisecondsInFrom"] for each in standing if each["to"] == "parked"] == [
        99_000,
        50_000,
        50_000,
        50_000,
    ]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("cycles_max", [2, 3, 4])
def test_parks_give_the_same_in_any_order(cycles_max: int, order: int) -> None:
    recorded = thread(6)
    for restored in (False, True):
        again = play(recorded[::order], Rules(park_cycles_max=cycles_max), restored=restored)
        assert_equals_model(again, recorded, cycles_max)


def test_parks_without_a_resume_of_the_first_fall_out_alone() -> None:
    recorded = placed([parked(1), *[step for cycle in range(2, 10) for step in (parked(cycle), resumed(cycle))]])
    played = play(recorded, Rules(park_cycles_max=3))
    assert_equals_model(played, recorded, 3)
    for cycle in range(5, 10):
        retracted = [each for each in operations(played, 2 * cycle - 3) if each[0] == "retract"]
        assert len(retracted) == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["parked", "connected", "connected", "transmitting", "alerting", "disconnected"]),
            st.integers(0, 7),
            st.sampled_from([-5, 1, 50, 90, 150]),
            st.sampled_from([None, None, 0, 5, 90]),
        ),
        min_size=1,
        max_size=14,
    ),
    st.integers(2, 4),
    st.randoms(use_true_random=False),
)
def test_any_parks_give_what_the_model_says(
    steps: list[tuple[str, int, int, int | None]], cycles_max: int, chance: random.Random
) -> None:
    """Seen or not, in any order, resumed to different states, with snapshots that lag behind."""
    recorded = placed(
        shown(
            "emails", state, cycle * STEP_S + lag_s + STEP_S, cycle or None,
            disconnectedTime=None if ended is None or state != "disconnected" else at(9 * STEP_S + ended),
        )
        for state, cycle, lag_s, ended in steps
    )  # fmt: skip
    disordered = recorded + chance.choices(recorded, k=3)
    chance.shuffle(disordered)
    played = play(disordered, Rules(park_cycles_max=cycles_max))
    assert_equals_model(played, recorded, cycles_max)
    assert play(recorded, Rules(park_cycles_max=cycles_max), restored=True).documents() == played.documents()


def test_parks_told_by_both_shapes_fall_out_of_their_union() -> None:
    """A flat entry joins the nested one: together they are parked more often than is kept."""
    flat = []
    for cycle in range(1, 6):
        for state, seconds in (("parked", cycle * STEP_S + 1), ("connected", cycle * STEP_S + 50)):
            who = {"id": "p1", "state": state, "parkTime": at(cycle * STEP_S)}
            document = websocket("v2.users.u1.conversations.messages", {"id": "c1", "participants": [who]})
            flat.append(make_record(document, seconds=seconds))
    nested = [step for cycle in range(3, 8) for step in (parked(cycle), resumed(cycle))]
    for parts in itertools.permutations((flat, nested)):
        recorded = placed(itertools.chain(*parts))
        played = play(recorded, Rules(park_cycles_max=3))
        assert_equals_model(played, recorded, 3)
        assert json.loads(played.states["c1"])["communications"] == {"message": {"connected": 1}}
