"""What the core costs per record, compared with work of the same kind that knows nothing of it.

Both are timed in one process, in turns, and the least time of each counts: how fast the machine is cancels out, and so
does most of what else runs on it. The calibration decodes the same values into dicts, walks them and encodes them.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import pytest

from consumer.core import showing, times
from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records
from tests.core.play import play_only

OF_CALIBRATION = 1.6
"""What the core took of the calibration's time when this was last set: lower it after a change that pays."""
REGRESSION_MAX = 1.5
_RECORDS = 2_000
_ROUNDS = 5


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
    started_s = time.process_time()
    work(made)
    return time.process_time() - started_s


def _twice(made: list[Record]) -> None:
    _core(made)
    _core(made)


def _of_calibration(made: list[Record], core: Callable[[list[Record]], None]) -> float:
    rounds = [(_cpu_s(core, made), _cpu_s(_calibration, made)) for _ in range(_ROUNDS)]
    return min(core_s for core_s, _ in rounds) / min(calibration_s for _, calibration_s in rounds)


@pytest.fixture(scope="module")
def made() -> list[Record]:
    traffic = records(Traffic(broken=0, ignorable=0))
    return [
        Record("t", 0, offset, draft.timestamp_ms, draft.key, draft.value)
        for offset, draft in enumerate(islice(traffic, _RECORDS))
    ]


def test_the_core_is_not_much_slower_than_it_was(made: list[Record]) -> None:
    of_calibration = _of_calibration(made, _core)
    print(f"the core takes {of_calibration:.2f} of the calibration")
    assert of_calibration <= OF_CALIBRATION * REGRESSION_MAX


def test_a_core_twice_as_slow_is_noticed(made: list[Record]) -> None:
    assert _of_calibration(made, _twice) > OF_CALIBRATION * REGRESSION_MAX
