"""A replay is what a lane does: the same states, the same evictions, the same stream time."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.runtime.replay import Replay
from consumer.runtime.verification import Verification
from tests.core.play import play
from tests.fakes import Broker
from tests.runtime.scenes import HOUR_S, call, heartbeat, rubbish
from tests.runtime.test_lane import EACH, Scene
from tests.strategies import TOPIC, histories, noise_records

RULES = Rules()
RETENTION_H = RULES.retention_ended_s // HOUR_S


def long_history() -> list[Record]:
    """An ended conversation that is evicted, one that stays, a late one, rubbish, and one that goes on for days."""
    records = [call(0, "connected", 1), call(1, "disconnected", 9), call(2, "connected", 5, "c2"), rubbish(3)]
    hours = range(RETENTION_H + 3)
    records += [call(4 + hour, "connected", hour * HOUR_S, "c3", held=bool(hour % 2)) for hour in hours]
    last = records[-1].offset
    return [*records, call(last + 1, "connected", 60, "late"), heartbeat(last + 2)]


async def test_it_holds_what_a_lane_has_published_and_a_verification_finds_no_difference() -> None:
    records = long_history()
    scene = await Scene(Broker(records), **EACH).consume(records[-1].next_offset)
    replay = Replay(RULES)
    for record in records:
        replay.take(record)
        replay.settle()
    assert {key.encode(): state for key, state in replay.store.items()} == scene.partition.states()
    assert scene.partition.states().keys() == {b"c2", b"c3"}
    assert [each["cc-reason"] for each in scene.dead()] == ["bad_json", "late"]

    found = Verification(RULES, TOPIC, 0, records[-1].next_offset)
    for letter in scene.partition.dead_letters:
        found.take_letter(Record("dead", 0, 0, 0, letter.key, letter.value, tuple(letter.headers)))
    for record in records:
        found.take_input([record])
    for key, state in scene.partition.state_log:
        found.take_state(Record("state", 0, 0, 0, key, state))
    found.begin_transitions(complete=True)
    for letter in scene.partition.transitions:
        found.take_transition(Record("transitions", 0, 0, 0, letter.key, letter.value))
    found.compare(None)
    assert (found.comparison.equal, found.comparison.different, found.comparison.apart.total()) == (2, 0, 0)
    assert not found.different


@settings(max_examples=60)
@given(histories(), st.lists(noise_records(), max_size=4), st.randoms(use_true_random=False))
def test_a_record_that_is_passed_over_moves_stream_time_as_if_it_were_taken(
    history: list[Record], noise: list[Record], chance: random.Random
) -> None:
    records = [*history, *noise]
    chance.shuffle(records)
    late = [msgspec.structs.replace(each, timestamp_ms=each.timestamp_ms - 90 * 86_400_000) for each in records[:2]]
    replay = Replay(RULES)
    for record, outcome in zip([*records, *late], play([*records, *late]).outcomes, strict=True):
        replay.pass_over(record)
        assert replay.stream_ms == outcome.stream_ms
