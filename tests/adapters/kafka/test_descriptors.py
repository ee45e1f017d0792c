"""How many descriptors a worker needs."""

import resource

import pytest

from consumer.adapters.kafka import descriptors


@pytest.mark.parametrize(
    ("partitions", "brokers", "limit", "verdict", "said"),
    [
        (64, 3, 1_024, "pass", "648 are enough for all 64 partitions"),
        (64, 3, 648, "pass", "648 are enough"),
        (64, 3, 647, "warn", "needs 648 file descriptors and may have 647: raise the limit"),
        (300, 1, 512, "warn", "each is given at most 104 partitions"),
        (300, 9, 512, "warn", "needs 2900 file descriptors"),
        (300, 9, 100, "warn", "each is given at most 0 partitions"),
        (300, 9, resource.RLIM_INFINITY, "pass", "2900 are enough"),
    ],
)
def test_what_all_partitions_need(partitions: int, brokers: int, limit: int, verdict: str, said: str) -> None:
    found = descriptors.check(partitions, brokers, limit)
    assert (found.verdict, said in found.told) == (verdict, True), found.told


def test_own_limit_is_the_default() -> None:
    assert descriptors.check(1, 1).verdict == "pass"
