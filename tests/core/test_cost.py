"""What the core costs per record, compared with work of the same kind that knows nothing of it.

Both are timed in one process, in turns, and the least time of each counts: how fast the machine is cancels out, and so
does most of what else runs on it. The calibration decodes the same values into dicts, walks them and encodes them.
"""

import time
from collections.abc import Callable
from itertools import islice
from math import inf, nan

import msgspec
import pytest
from msgspec.structs import replace

from consumer.core import normalize, timestamps
from consumer.core.escapes import JsonText
from consumer.core.extent import NESTING_MAX, find_excess
from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records
from tests.benchmarks import calibration, hostile
from tests.core.play import play_only

pytestmark = pytest.mark.slow

OF_CALIBRATION = 1.6
"""What the core took of the calibration's time when this was last set: lower it after a change that pays."""
REGRESSION_MAX = 2.5
"""Far from what a busy machine does: the core once took twice as much there, for its caches are shared."""
_RECORDS = 2_000
_ROUNDS = 5
_ROUNDS_MAX = 25
"""On a busy machine the least time of few rounds is not yet that of an idle one."""


def _core(made: list[Record]) -> None:
    for cache in (normalize._normalize_cached, timestamps._parse_text, timestamps._normalize_text, timestamps.to_text):
        cache.cache_clear()
    play_only(made)


def _cpu_s(work: Callable[[list[Record]], None], made: list[Record]) -> float:
    started_s = time.thread_time()
    work(made)
    return time.thread_time() - started_s


def _thrice(made: list[Record]) -> None:
    for _ in range(3):
        _core(made)


def _of_calibration(
    made: list[Record], core: Callable[[list[Record]], None], is_expected: Callable[[float], bool]
) -> float:
    """The ratio of the least times, after more rounds as long as it is not as expected."""
    core_s, calibration_s, ratio = inf, inf, nan
    for number in range(1, _ROUNDS_MAX + 1):
        core_s = min(core_s, _cpu_s(core, made))
        calibration_s = min(calibration_s, calibration.walk_s(made))
        ratio = core_s / calibration_s
        if number >= _ROUNDS and is_expected(ratio):
            break
    return ratio


def _is_good(of_calibration: float) -> bool:
    return of_calibration <= OF_CALIBRATION * REGRESSION_MAX


def _is_bad(of_calibration: float) -> bool:
    return not _is_good(of_calibration)


@pytest.fixture(scope="module")
def made() -> list[Record]:
    traffic = records(Traffic(broken=0, ignorable=0))
    return [
        Record("t", 0, offset, draft.timestamp_ms, draft.key, draft.value)
        for offset, draft in enumerate(islice(traffic, _RECORDS))
    ]


def test_the_core_is_not_much_slower_than_it_was(made: list[Record]) -> None:
    of_calibration = _of_calibration(made, _core, _is_good)
    print(f"the core takes {of_calibration:.2f} of the calibration")
    assert _is_good(of_calibration)


HOSTILE_OF_ORDINARY = 0.45
"""What the costliest stage took of the time to walk through as much ordinary JSON, when this was last set."""


def _may_be_smaller(choices: hostile.Choices) -> bool:
    """Whether the time goes into the filling, so that a quarter of it takes a quarter."""
    return choices.participants * choices.communications <= 1 and not choices.contradicts


def test_no_stage_costs_more_than_as_much_ordinary_json() -> None:
    """Whatever it nests, repeats or escapes: reading is linear, and what there is too much of is not read."""
    sizes = (hostile.SIZE_MAX, hostile.SIZE_MAX // 4)
    ordinary = {size: calibration.draw_ordinary(size) for size in sizes}
    ordinary_s = {size: min(calibration.walk_s(ordinary[size]) for _ in range(_ROUNDS)) for size in sizes}
    for choices in hostile.PLAIN:
        size = sizes[_may_be_smaller(choices)]
        value = replace(choices, size=size).value()
        assert size - 40_000 < len(value) <= size
        costs = (hostile.cost_s(choices, value, 1) / ordinary_s[size] for _ in range(_ROUNDS))
        assert any(cost <= HOSTILE_OF_ORDINARY * REGRESSION_MAX for cost in costs), choices


_JUMP_MAX = 12
"""Five when this was last set."""


def _crowd(participants: int) -> bytes:
    """A conversation with participants that have some ten brackets and a thousand bytes each, as real ones do."""
    legs = [{"self": {}, "wrapup": {}, "note": '[{"a": 1}]', **{f"property{number}": "x" * 20 for number in range(20)}}]
    who = {"attributes": {}, "queue": {}, "calls": legs, "roles": []}
    return msgspec.json.encode({"participants": [who | {"id": f"p{number}"} for number in range(participants)]})


def test_telling_how_deep_a_value_is_does_not_jump() -> None:
    """It costs as much per byte where brackets have to be looked at as where there are few."""
    few, many = _crowd(25), _crowd(1_000)
    assert few.count(b"{") + few.count(b"[") < NESTING_MAX < many.count(b"[")
    rounds = [(_exceeded_s(few, 4_000), _exceeded_s(many, 100)) for _ in range(_ROUNDS)]
    few_s, many_s = (min(seconds) for seconds in zip(*rounds, strict=True))
    assert many_s / (100 * len(many)) <= _JUMP_MAX * few_s / (4_000 * len(few))


def _exceeded_s(value: bytes, times_: int) -> float:
    started_s = time.process_time()
    for _ in range(times_):
        assert find_excess(JsonText(value)) is None
    return time.process_time() - started_s


def test_a_core_three_times_as_slow_is_noticed(made: list[Record]) -> None:
    assert _is_bad(_of_calibration(made, _thrice, _is_bad))
