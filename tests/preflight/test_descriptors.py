"""How many file descriptors a worker needs."""

import resource

import pytest

from consumer.preflight import descriptors


@pytest.mark.parametrize(
    ("partitions", "brokers", "limit", "status", "says"),
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
def test_limit_has_to_suffice_for_all_partitions(
    partitions: int, brokers: int, limit: int, status: str, says: str
) -> None:
    result = descriptors.check(partitions, brokers, limit)
    assert (result.status, says in result.sentence) == (status, True), result.sentence


def test_limit_of_this_process_is_the_default() -> None:
    assert descriptors.check(1, 1).status == "pass"
