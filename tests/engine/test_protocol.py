"""What both engines promise a lane: slices, staging, and what a failed commit leaves behind."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import pytest
from msgspec.structs import replace

from consumer.core.envelope import LONG_BYTES
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.choice import EngineName
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import Engine, Outputs, Staged
from consumer.engine.python import EngineOptions
from tests.engines import as_fetched, engine_class, list_outputs
from tests.worker.scenes import call, heartbeat, rubbish

OPTIONS = EngineOptions(
    Rules(),
    BreakerLimits(ratio_max=1.0, window_records=10_000, consecutive_max=5),
    DeadLetterFormat(keep_payload=True, payload_bytes_max=10_000, version="1"),
)
RECORDS = [
    call(0, "alerting", 1),
    call(1, "alerting", 2, "c2"),
    rubbish(2),
    call(3, "connected", 5),
    call(4, "connected", 5),
    heartbeat(5),
    call(6, "disconnected", 9, "c2"),
]


def make_clock(step_s: float) -> Callable[[], float]:
    """A clock that moves at every reading."""
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * step_s


def process_all(engine: Engine, records: list[Record]) -> None:
    done = engine.process(records, 0, 60.0, now_s=7.0, now_ms=0)
    assert (done.next_index, done.stopped_by) == (len(records), "end")


Start = Callable[..., Engine]


@pytest.fixture
def start_engine(each_engine: EngineName) -> Start:
    """Start an engine with options, and by a clock if one is given."""
    make = engine_class(each_engine)

    def start(options: EngineOptions = OPTIONS, clock_s: Callable[[], float] = time.perf_counter) -> Engine:
        engine = make(options, clock_s)
        engine.start(0, None)
        return engine

    return start


def test_slices_do_not_change_the_outputs(start_engine: Start) -> None:
    whole = start_engine()
    process_all(whole, RECORDS)
    cut = start_engine(clock_s=make_clock(1.0))
    index, stops = 0, []
    while index < len(RECORDS):
        done = cut.process(RECORDS, index, 2.0, now_s=7.0, now_ms=0)
        index = done.next_index
        stops.append(done.stopped_by)
    assert set(stops[:-1]) == {"time"}
    assert len(stops) > 2
    assert (list_outputs(cut), cut.stats, cut.next_offset, cut.stream_ms) == (
        list_outputs(whole), whole.stats, whole.next_offset, whole.stream_ms,
    )  # fmt: skip


def test_a_slice_processes_at_least_one_record(start_engine: Start) -> None:
    engine = start_engine(clock_s=make_clock(1.0))
    assert engine.process(RECORDS, 3, 0.0, now_s=0.0, now_ms=0).next_index == 4


def lengthen(record: Record) -> Record:
    """The same with a member that makes its value a long one."""
    assert record.value is not None
    return replace(record, value=record.value[:-1] + b',"zz":"' + b"x" * LONG_BYTES + b'"}')


LONG_RECORDS = [lengthen(record) for record in RECORDS]


def process_in_stages(engine: Engine, records: Sequence[Record], between: Callable[[], object]) -> list[int]:
    """Process records as if time were always up; returns where each call got to."""
    reached = [0]
    while reached[-1] < len(records):
        reached.append(engine.process(records, reached[-1], 0.0, now_s=7.0, now_ms=0).next_index)
        between()
    return reached


def test_a_long_record_is_processed_in_stages(start_engine: Start) -> None:
    """A call has no more than one of its stages to do, and what comes out is the same."""
    whole, staged = start_engine(), start_engine()
    process_all(whole, LONG_RECORDS)
    reached = process_in_stages(staged, LONG_RECORDS, lambda: None)
    assert [reached.count(index) for index, _ in enumerate(LONG_RECORDS) if index > 0] == [5, 5, 5, 5, 4, 5]
    assert (list_outputs(staged), staged.stats, staged.next_offset, staged.stream_ms) == (
        list_outputs(whole), whole.stats, whole.next_offset, whole.stream_ms,
    )  # fmt: skip


def test_a_long_record_of_a_fetched_batch_is_processed_in_stages(start_engine: Start) -> None:
    whole, staged = start_engine(), start_engine()
    process_all(whole, LONG_RECORDS)
    assert process_in_stages(staged, as_fetched(LONG_RECORDS), lambda: None)[-1] == len(LONG_RECORDS)
    assert (list_outputs(staged), staged.stats) == (list_outputs(whole), whole.stats)


def test_commits_between_the_stages_of_a_record(start_engine: Start) -> None:
    """A lane commits whenever that is due; the stage that uses the state comes last."""
    whole, staged = start_engine(), start_engine()
    process_all(whole, LONG_RECORDS)
    whole.commit(1)
    process_in_stages(staged, LONG_RECORDS, lambda: staged.commit(1))
    states = [dict(engine.states.items()) for engine in (whole, staged)]
    assert states[0] == states[1]
    assert len(states[0]) == 2


def test_a_long_record_begins_again_after_a_rollback(start_engine: Start) -> None:
    engine, other = start_engine(), start_engine()
    assert engine.process(LONG_RECORDS, 0, 0.0, now_s=7.0, now_ms=0).next_index == 0
    engine.rollback()
    process_all(engine, [lengthen(call(0, "connected", 1))])
    process_all(other, [lengthen(call(0, "connected", 1))])
    assert list_outputs(engine) == list_outputs(other)


def test_staged_counts_records_and_bytes_since_the_first(start_engine: Start) -> None:
    engine = start_engine()
    assert engine.staged.records == 0
    process_all(engine, RECORDS[:2])
    first = engine.staged
    assert (first.records, first.since_s) == (2, 7.0)
    engine.process(RECORDS, 2, 60.0, now_s=9.0, now_ms=0)
    assert (engine.staged.records, engine.staged.since_s) == (len(RECORDS), 7.0)
    assert engine.staged.bytes > first.bytes > 0
    engine.commit(2)
    assert engine.staged == Staged()


def test_outputs_hold_the_last_state_of_each_conversation(start_engine: Start) -> None:
    engine = start_engine()
    process_all(engine, RECORDS)
    outputs = engine.outputs()
    assert [output.key for output in outputs.states] == [b"c1", b"c2"]
    assert [output.key for output in outputs.transitions] == [b"c1", b"c2", b"c1", b"c2"]
    assert [dict(output.headers)["cc-reason"] for output in outputs.dead_letters] == [b"bad_json"]
    assert engine.count_staged() == 2
    engine.commit(2)
    assert dict(engine.states.items()) == {(output.key or b"").decode(): output.value for output in outputs.states}
    assert list_outputs(engine) == Outputs([], [], [])


def test_rolled_back_work_leaves_no_trace(start_engine: Start) -> None:
    """After any rollbacks in between, the outputs are those of a lane in which no commit failed."""
    chance = random.Random(5)
    for _ in range(50):
        plain, tried, at = start_engine(), start_engine(), 0
        while at < len(RECORDS):
            upto = at + chance.randint(1, 3)
            for _ in range(chance.randint(0, 2)):
                offset, stream_ms = tried.next_offset, tried.stream_ms
                process_all(tried, RECORDS[at : upto + chance.randint(0, 2)])
                tried.rollback()
                tried.settle_breaker(is_committed=False)
                assert offset is not None
                tried.start(offset, stream_ms)
            process_all(plain, RECORDS[at:upto])
            process_all(tried, RECORDS[at:upto])
            assert list_outputs(tried) == list_outputs(plain)
            plain.commit(at + 1)
            tried.commit(at + 1)
            at = upto
        assert dict(tried.states.items()) == dict(plain.states.items())


def test_an_open_breaker_stops_the_slice_behind_its_record(start_engine: Start) -> None:
    engine = start_engine()
    records = [call(0, "alerting", 1), *[rubbish(offset) for offset in range(1, 10)]]
    done = engine.process(records, 0, 60.0, now_s=0.0, now_ms=0)
    assert (done.next_index, done.stopped_by, engine.next_offset) == (6, "breaker", 6)
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in engine.open_reason
    engine.reset_breaker()
    assert engine.open_reason == ""


@pytest.mark.parametrize("is_committed", [True, False])
def test_breaker_counts_a_lost_answer_once_it_is_settled(start_engine: Start, is_committed: bool) -> None:  # noqa: FBT001 - a column
    """The outcomes of the commit count only if it succeeded."""
    engine = start_engine()
    process_all(engine, [rubbish(offset) for offset in range(4)])
    engine.rollback()
    engine.settle_breaker(is_committed=is_committed)
    process_one = engine.process([rubbish(4)], 0, 60.0, now_s=0.0, now_ms=0)
    assert (process_one.stopped_by == "breaker") is is_committed


def test_dead_letters_follow_payload_setting_and_version(start_engine: Start) -> None:
    form = DeadLetterFormat(keep_payload=False, payload_bytes_max=1, version="9")
    engine = start_engine(replace(OPTIONS, dead_letters=form))
    process_all(engine, [rubbish(0)])
    (letter,) = engine.outputs().dead_letters
    assert (letter.key, letter.value, dict(letter.headers)["cc-service-version"]) == (None, b"", b"9")
