"""How much of the memory for states is taken, at its limits."""

import pytest

from consumer.worker.state_memory import StateMemory


@pytest.mark.parametrize(
    ("taken", "limit", "is_near", "is_full"),
    [
        (10**12, 0, False, False),
        (0, 1_000, False, False),
        (899, 1_000, False, False),
        (900, 1_000, True, False),
        (999, 1_000, True, False),
        (1_000, 1_000, True, True),
        (2_000, 1_000, True, True),
    ],
)
def test_memory_is_near_its_limit_and_full(*, taken: int, limit: int, is_near: bool, is_full: bool) -> None:
    memory = StateMemory(taken, limit)
    assert (memory.is_near, memory.is_full) == (is_near, is_full)
    assert f"{taken} of {limit} bytes (CC_STATE_TOTAL_BYTES_MAX)" in memory.sentence
