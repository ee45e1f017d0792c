"""The native engine and the reference engine agree on every record, whatever it is and whatever the lane does."""

import os
import random
from collections.abc import Sequence

import pytest
from hypothesis import given

from consumer.core.record import Record
from consumer.engine.choice import EngineClass
from consumer.engine.commit_stats import DECLINED_REASONS
from consumer.engine.protocol import Outputs, Slice
from consumer.engine.python import PythonEngine
from consumer.telemetry.labels import MEDIA
from tests.engine.differential import Commit, Difference, Process, Scenario, Step, Tally, make_scenario, replay, shrink
from tests.engine.fuzz import compare
from tests.engine.test_protocol import OPTIONS
from tests.engines import engine_class
from tests.strategies import histories, number_offsets
from tests.worker.scenes import call, heartbeat, rubbish

SEEDS = range(1, 13)
RECORDS = 150
FUZZ_S = 120.0 if os.environ.get("CI") else 20.0


@pytest.fixture(scope="module")
def native() -> EngineClass:
    return engine_class("native")


@pytest.mark.parametrize("seed", SEEDS)
def test_engines_agree_on_a_scenario(native: EngineClass, seed: int) -> None:
    tally = Tally()
    replay(make_scenario(seed, RECORDS), PythonEngine, native, tally)
    assert set(tally.declined) <= set(DECLINED_REASONS)


@given(histories())
def test_engines_agree_on_a_history(native: EngineClass, history: list[Record]) -> None:
    records = number_offsets(history)
    half = len(records) // 2
    steps: list[Step] = [Process(records[:half]), Commit(), Process(records[half:]), Process(records), Commit()]
    replay(Scenario(OPTIONS, steps), PythonEngine, native)


@pytest.mark.slow
def test_engines_agree_on_random_scenarios(native: EngineClass) -> None:
    """`FUZZ_SEED` repeats a run."""
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(10**9)))
    print("seed", seed)
    tally = Tally()
    program = compare(seed, FUZZ_S, PythonEngine, native, tally)
    print(*tally.lines(), sep="\n")
    assert not program, program
    assert set(tally.declined) <= set(DECLINED_REASONS)


@pytest.mark.slow
def test_scenarios_reach_all_that_an_engine_does() -> None:
    tally = Tally()
    for seed in range(30):
        replay(make_scenario(seed), PythonEngine, PythonEngine, tally)
    assert set(tally.media) >= set(MEDIA)
    assert set(tally.framings) >= {"byte_order_mark", "confluent", "connect", "key_confluent", "key_text"}
    assert {disposition.split()[0] for disposition in tally.dispositions} == {
        "applied", "unchanged", "ignored", "dead_lettered",
    }  # fmt: skip
    reasons = {disposition.partition(" ")[2] for disposition in tally.dispositions}
    assert reasons >= {"late", "too_large", "too_deep", "key_mismatch", "no_time", "nothing_usable", "tombstone"}
    assert tally.evicted
    assert tally.opened


class Careless(PythonEngine):
    """An engine with a fault: of a conversation that is disconnected it loses the transitions."""

    def outputs(self) -> Outputs:
        outputs = super().outputs()
        kept = [output for output in outputs.transitions if b'"to":"disconnected"' not in (output.value or b"")]
        return Outputs(outputs.states, kept, outputs.dead_letters)


class Forgetful(PythonEngine):
    """An engine with a fault: it skips the third record of a slice."""

    def process(
        self, records: Sequence[Record], first_index: int, slice_s: float, *, now_s: float, now_ms: int
    ) -> Slice:
        kept = [*records[: first_index + 2], *records[first_index + 3 :]]
        done = super().process(kept, first_index, slice_s, now_s=now_s, now_ms=now_ms)
        return Slice(min(len(records), done.next_index + 1), done.stopped_by, done.seconds)


@pytest.mark.parametrize(
    ("faulty", "records"), [(Careless, 1), (Forgetful, 3)], ids=lambda value: getattr(value, "__name__", "")
)
def test_a_fault_is_found_and_shrunk(faulty: type[PythonEngine], records: int) -> None:
    steps: list[Step] = [
        Process([call(0, "alerting", 1), rubbish(1)]),
        Commit(),
        Process([call(2, "alerting", 2, "c2"), heartbeat(3), call(4, "connected", 3), call(5, "disconnected", 4)]),
        Commit(),
    ]
    scenario = Scenario(OPTIONS, steps)
    with pytest.raises(Difference):
        replay(scenario, PythonEngine, faulty)
    smallest, _ = shrink(scenario, PythonEngine, faulty, 10.0)
    processed = [step for step in smallest.steps if isinstance(step, Process)]
    assert sum(len(step.records) for step in processed) == records
    assert len(smallest.steps) == 1
