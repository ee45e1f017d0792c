"""More park cycles than are kept: a dropped cycle is retracted, and what follows it stands."""

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
from tests.strategies import NESTED_TOPICS, at, make_record, number_offsets, websocket

STEP_S = 100


def snapshot(array: str, state: str, seconds: float, park: int | None, **more: Any) -> Record:
    """A thread in some state, with the time of its latest park."""
    leg = {"id": "m1", "state": state, "connectedTime": at(1), **more}
    if park is not None:
        leg["parkTime"] = at(park * STEP_S)
    body = {"id": "c1", "participants": [{"id": "p1", array: [leg]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds)


def park(cycle: int) -> Record:
    return snapshot("messages", "parked", cycle * STEP_S + 1, cycle)


def resume(cycle: int, state: str = "connected") -> Record:
    return snapshot("messages", state, cycle * STEP_S + 50, cycle)


def thread(cycles: int) -> list[Record]:
    """A thread that is parked and resumed `cycles` times."""
    steps = [step for cycle in range(1, cycles + 1) for step in (park(cycle), resume(cycle))]
    return number_offsets([snapshot("messages", "connected", 1, None), *steps])


def operations(played: Played, offset: int) -> list[tuple[str, str, str]]:
    return [
        (transition["op"], transition["to"], transition["eventTime"])
        for transition in played.log
        if transition["source"]["offset"] == offset
    ]


def assert_equals_model(played: Played, recorded: list[Record], cycles_max: int) -> None:
    rules = model.Rules(park_cycles_max=cycles_max)
    assert played.documents() == model.conversations(recorded, rules)
    model.check_log(played.log, parks_fall_out=True)
    standing = model.standing(recorded, rules)["c1"]
    assert model.net(played.log) == {transition["id"]: transition for transition in standing}


@pytest.mark.parametrize("cycles_max", [2, 3, Rules().park_cycles_max])
def test_a_park_beyond_the_cap_retracts_the_dropped_cycle(cycles_max: int) -> None:
    """The new park is asserted, the second oldest is retracted with its resume, and nothing else is published."""
    recorded = thread(cycles_max + 5)
    played = play(recorded, Rules(park_cycles_max=cycles_max))
    for cycle in range(cycles_max + 1, cycles_max + 6):
        dropped = cycle - cycles_max + 1
        assert operations(played, 2 * cycle - 1) == [
            ("retract", "connected", at(dropped * STEP_S + 50)),
            ("retract", "parked", at(dropped * STEP_S)),
            ("assert", "parked", at(cycle * STEP_S)),
        ]
        assert operations(played, 2 * cycle) == [("assert", "connected", at(cycle * STEP_S + 50))]
    assert Counter(transition["op"] for transition in played.log)["retract"] == 2 * 5
    assert_equals_model(played, recorded, cycles_max)


def test_a_dropped_cycle_does_not_change_later_durations() -> None:
    """The time in the state before a park is counted from the resume before it, though that was dropped."""
    recorded = thread(9)
    standing = model.net(play(recorded, Rules(park_cycles_max=4)).log).values()
    durations_ms = [transition["millisecondsInFrom"] for transition in standing if transition["to"] == "parked"]
    assert durations_ms == [99_000, 50_000, 50_000, 50_000]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("cycles_max", [2, 3, 4])
def test_parks_give_the_same_in_any_order(cycles_max: int, order: int) -> None:
    recorded = thread(6)
    for restored in (False, True):
        played = play(recorded[::order], Rules(park_cycles_max=cycles_max), restored=restored)
        assert_equals_model(played, recorded, cycles_max)


def test_dropped_cycles_after_a_first_park_without_resume() -> None:
    cycles = [step for cycle in range(2, 10) for step in (park(cycle), resume(cycle))]
    recorded = number_offsets([park(1), *cycles])
    played = play(recorded, Rules(park_cycles_max=3))
    assert_equals_model(played, recorded, 3)
    for cycle in range(5, 10):
        operations_of_park = [op for op, _, _ in operations(played, 2 * cycle - 3)]
        assert operations_of_park.count("retract") == 2


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
def test_any_parks_agree_with_the_model(
    steps: list[tuple[str, int, int, int | None]], cycles_max: int, chance: random.Random
) -> None:
    """Parks that no record shows included, in any order, resumed to different states, with snapshots that lag."""
    recorded = number_offsets(
        snapshot(
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


def test_park_cycles_max_holds_for_joined_communications() -> None:
    """A flat entry joins the nested one, and together they have more park cycles than are kept."""
    flat = []
    for cycle in range(1, 6):
        for state, seconds in (("parked", cycle * STEP_S + 1), ("connected", cycle * STEP_S + 50)):
            participant = {"id": "p1", "state": state, "parkTime": at(cycle * STEP_S)}
            body = {"id": "c1", "participants": [participant]}
            document = websocket("v2.users.u1.conversations.messages", body)
            flat.append(make_record(document, seconds=seconds))
    nested = [step for cycle in range(3, 8) for step in (park(cycle), resume(cycle))]
    for parts in itertools.permutations((flat, nested)):
        recorded = number_offsets(itertools.chain(*parts))
        played = play(recorded, Rules(park_cycles_max=3))
        assert_equals_model(played, recorded, 3)
        assert json.loads(played.states["c1"])["communications"] == {"message": {"connected": 1}}


def test_a_park_leaves_with_the_flat_communication_that_showed_it() -> None:
    """What follows it stands: the session was connected at the same time before the park and after it."""
    nested = {"id": "m1", "state": "disconnected", "connectedTime": at(0), "disconnectedTime": at(20)}
    flat = {"state": "connected", "connectedTime": at(0), "parkTime": at(0)}
    shown: list[tuple[str, dict[str, Any], float]] = [
        (NESTED_TOPICS[0], {"calls": [nested]}, 21),
        ("v2.users.u1.conversations.calls", flat, 0),
        (NESTED_TOPICS[0], {"calls": [{"id": "m2", "state": "alerting"}]}, 30),
    ]
    recorded = number_offsets(
        make_record(websocket(topic, {"id": "c1", "participants": [{"id": "p1"} | calls]}), seconds=seconds)
        for topic, calls, seconds in shown
    )
    played = play(recorded)
    assert played.documents() == model.conversations(recorded, model.Rules())
    model.check_log(played.log)
    assert [(operation["op"], operation["to"]) for operation in played.log if operation["source"]["offset"] == 2] == [
        ("retract", "connected"),
        ("retract", "parked"),
        ("assert", "alerting"),
    ]
