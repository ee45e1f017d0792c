"""A replay does what a lane does: the same states, evictions and stream time."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.committed_states import EVICTIONS_PER_RECORD_MAX
from consumer.tools.replay import Replay
from consumer.tools.verification import Verification
from tests.core.play import play
from tests.fakes import Broker
from tests.strategies import FEWER, TOPIC, histories, noise_records
from tests.worker.scenes import HOUR_S, call, heartbeat, rubbish
from tests.worker.test_lane import COMMIT_PER_RECORD, Scene

RULES = Rules()
RETENTION_H = RULES.retention_ended_s // HOUR_S


def long_history() -> list[Record]:
    """An ended conversation that is evicted, one that stays, a late one, rubbish, and one that lasts for days."""
    records = [call(0, "connected", 1), call(1, "disconnected", 9), call(2, "connected", 5, "c2"), rubbish(3)]
    hours = range(RETENTION_H + 3)
    records += [call(4 + hour, "connected", hour * HOUR_S, "c3", held=bool(hour % 2)) for hour in hours]
    last = records[-1].offset
    return [*records, call(last + 1, "connected", 60, "late"), heartbeat(last + 2)]


async def test_a_replay_equals_what_a_lane_published() -> None:
    records = long_history()
    scene = await Scene(Broker(records), **COMMIT_PER_RECORD).consume(records[-1].next_offset)
    replay = Replay(RULES)
    for record in records:
        replay.apply(record)
        replay.commit()
    assert {key.encode(): state for key, state in replay.store.items()} == scene.partition.states()
    assert scene.partition.states().keys() == {b"c2", b"c3"}
    assert [headers["cc-reason"] for headers in scene.dead_letter_headers()] == ["bad_json", "late"]

    verification = Verification(RULES, TOPIC, 0, records[-1].next_offset)
    for letter in scene.partition.dead_letters:
        verification.add_dead_letter(Record("dead", 0, 0, 0, letter.key, letter.value, tuple(letter.headers)))
    for record in records:
        verification.add_input([record])
    for state in scene.partition.read("state"):
        verification.add_state(Record("state", 0, 0, 0, state.key, state.value))
    verification.begin_transitions(is_complete=True)
    for transition in scene.partition.transitions:
        verification.add_transition(Record("transitions", 0, 0, 0, transition.key, transition.value))
    verification.compare(None)
    comparison = verification.comparison
    assert (comparison.equal, comparison.different, comparison.excluded.total()) == (2, 0, 0)
    assert not verification.different


def test_a_conversation_that_returns_after_its_eviction_is_noted() -> None:
    """So is one that was due: a record evicts only so many, and the last is still there though it has expired."""
    names = [f"e{number}" for number in range(EVICTIONS_PER_RECORD_MAX + 1)]
    records = [call(offset, "disconnected", 0, name) for offset, name in enumerate(names)]
    hours = range(RETENTION_H + 1)
    records += [call(100 + hour, "connected", 60 + hour * HOUR_S, "c3", held=bool(hour % 2)) for hour in hours]
    replay = Replay(RULES)
    for record in records:
        replay.apply(record)
        replay.commit()
    assert (len(replay.store), replay.returned) == (2, set())
    for offset, name in enumerate(names, 1_000):
        before, outcome = replay.apply(call(offset, "connected", 60 + RETENTION_H * HOUR_S, name, "m2"))
        assert (outcome.disposition, before is None) == ("applied", name not in dict(replay.store.items()))
    assert replay.returned == set(names)


@FEWER
@given(histories(), st.lists(noise_records(), max_size=4), st.randoms(use_true_random=False))
def test_a_skipped_record_moves_stream_time_like_any_other(
    history: list[Record], noise: list[Record], chance: random.Random
) -> None:
    records = [*history, *noise]
    chance.shuffle(records)
    late = [
        msgspec.structs.replace(record, timestamp_ms=record.timestamp_ms - 90 * 86_400_000) for record in records[:2]
    ]
    replay = Replay(RULES)
    for record, outcome in zip([*records, *late], play([*records, *late]).outcomes, strict=True):
        replay.skip(record)
        assert replay.stream_ms == outcome.stream_ms
