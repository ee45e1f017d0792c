"""What the core costs per record, compared with work of the same kind that knows nothing of it.

Both are timed in one process, in turns, and the least time of each counts: how fast the machine is cancels out, and so
does most of what else runs on it. The calibration decodes the same values into dicts, walks them and encodes them.
"""

import time
from collections.abc import Callable
from itertools import islice
from math import inf, nan
from typing import Any

import msgspec
import pytest

from consumer.core import showing, times
from consumer.core.extent import NESTING_MAX, exceeded
from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records
from tests.benchmarks import hostile
from tests.core.play import play_only

OF_CALIBRATION = 1.6
"""What the core took of the calibration's time when this was last set: lower it after a change that pays."""
REGRESSION_MAX = 1.5
_RECORDS = 2_000
_ROUNDS = 5
_ROUNDS_MAX = 25
"""On a busy machine the least time of few rounds is not yet that of an idle one."""


def _walk(node: Any) -> int:
    """Look at everything that a document holds, as bytecode does; how much there is."""
    if isinstance(node, dict):
        return sum([_walk(value) for value in {key.lower(): value for key, value in node.items()}.values()]) + 1
    if isinstance(node, list):
        return sum([_walk(value) for value in node]) + 1
    return 1


def _calibration(made: list[Record]) -> None:
    for record in made:
        document = msgspec.json.decode(record.value or b"")
        assert _walk(document) > 1
        assert msgspec.json.encode(document)


def _core(made: list[Record]) -> None:
    for cache in (showing._remembered, times._parse_text, times._published_text, times.text):
        cache.cache_clear()
    play_only(made)


def _cpu_s(work: Callable[[list[Record]], None], made: list[Record]) -> float:
    started_s = time.thread_time()
    work(made)
    return time.thread_time() - started_s


def _twice(made: list[Record]) -> None:
    _core(made)
    _core(made)


def _of_calibration(
    made: list[Record], core: Callable[[list[Record]], None], is_expected: Callable[[float], bool]
) -> float:
    """The ratio of the least times, after more rounds as long as it is not as expected."""
    core_s, calibration_s, ratio = inf, inf, nan
    for number in range(1, _ROUNDS_MAX + 1):
        core_s = min(core_s, _cpu_s(core, made))
        calibration_s = min(calibration_s, _cpu_s(_calibration, made))
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


HOSTILE_OF_ORDINARY = 1.0
"""What the costliest record took of the time to walk through as much ordinary JSON, when this was last set."""


def _ordinary() -> list[Record]:
    """As many bytes of ordinary records as the largest record has."""
    found: list[Record] = []
    size = 0
    for draft in records(Traffic(broken=0, ignorable=0)):
        size += len(draft.value)
        if size > hostile.SIZE_MAX:
            return found
        found.append(Record("t", 0, len(found), draft.timestamp_ms, draft.key, draft.value))
    raise AssertionError("traffic has no end")


def test_no_record_costs_more_than_as_much_ordinary_json() -> None:
    """Whatever it nests, repeats or escapes: reading is linear, and what there is too much of is not read."""
    ordinary = _ordinary()
    ordinary_s = min(_cpu_s(_calibration, ordinary) for _ in range(_ROUNDS))
    for choices in hostile.PLAIN:
        value = choices.value()
        assert hostile.SIZE_MAX - 40_000 < len(value) <= hostile.SIZE_MAX
        costs = (hostile.cost_s(value, 1) / ordinary_s for _ in range(_ROUNDS))
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
    few_s, many_s = (min(each) for each in zip(*rounds, strict=True))
    assert many_s / (100 * len(many)) <= _JUMP_MAX * few_s / (4_000 * len(few))


def _exceeded_s(value: bytes, times_: int) -> float:
    started_s = time.process_time()
    for _ in range(times_):
        assert exceeded(value) is None
    return time.process_time() - started_s


def test_a_core_twice_as_slow_is_noticed(made: list[Record]) -> None:
    assert _is_bad(_of_calibration(made, _twice, _is_bad))
