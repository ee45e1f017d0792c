"""The harness notices what it is there to notice. Needs no broker."""

from typing import Any

import pytest

from consumer.core.record import Record
from tests.live import witnessed
from tests.live.expectation import USED
from tests.live.faults import DESCRIPTORS_MAX, RESIDENT_BYTES_MAX, broken_promises
from tests.live.soak_table import Report, Sample
from tests.live.witness import digest


def used(resident_mb: float, descriptors: int, age_s: float) -> Sample:
    return Sample(age_s, int(resident_mb * 1e6), descriptors)


def report(*samples: Sample, state_bytes: int = 0) -> Report:
    return Report(1, samples={0: list(samples)}, state_bytes=state_bytes)


def test_a_flat_worker_grew_nothing() -> None:
    assert report(*(used(100 + each % 3, 20 + each % 5, each * 10.0) for each in range(60))).growth() == []


def test_warming_up_is_no_growth() -> None:
    assert report(used(10, 3, 0), used(60, 9, 10), *(used(160, 30, 30.0 + each) for each in range(9))).growth() == []


@pytest.mark.parametrize(("state_bytes", "told"), [(0, 1), (20_000_000, 0)])
def test_memory_that_state_does_not_account_for_is_growth(state_bytes: int, told: int) -> None:
    found = report(*(used(100 + each * 2, 20, each * 10.0) for each in range(90)), state_bytes=state_bytes).growth()
    assert len(found) == told
    assert all("memory grew by" in each for each in found)


def test_descriptors_that_are_not_given_back_are_growth() -> None:
    (told,) = report(*(used(100, 20 + each, each * 10.0) for each in range(90))).growth()
    assert told.startswith("descriptors grew by")


def test_a_maximum_counts_whoever_reached_it() -> None:
    small, large = used(100, 20, 90), used(RESIDENT_BYTES_MAX / 1e6 + 1, DESCRIPTORS_MAX + 1, 1)
    assert len(broken_promises(Report(1, samples={0: [small], 1: [large]}))) == 2
    assert broken_promises(Report(1, samples={0: [small]})) == []


def state_record(offset: int, key: str, value: bytes | None) -> Record:
    return Record("state", 0, offset, 0, key.encode(), value)


LOG = [state_record(0, "a", b"1"), state_record(2, "b", b"1"), state_record(3, "a", b"2"), state_record(5, "b", None)]


@pytest.mark.parametrize(
    ("log_offset", "states"), [(0, {}), (1, {"a": b"1"}), (3, {"a": b"1", "b": b"1"}), (6, {"a": b"2"})]
)
def test_memory_is_compared_with_the_state_topic_up_to_there(log_offset: int, states: dict[str, bytes]) -> None:
    def told(held: dict[str, bytes]) -> list[dict[str, Any]]:
        return [{"partition": 0, "log_offset": log_offset, "digest": f"{digest(held.items()):032x}"}]

    assert list(witnessed.misremembered(told(states), LOG)) == []
    assert len(list(witnessed.misremembered(told({**states, "c": b"1"}), LOG))) == 1


FATES = {(0, offset): USED for offset in range(4)} | {(0, 5): "dead_lettered", (0, 6): "ignored"}


def line(next_offset: int, **counts: int) -> dict[str, Any]:
    return {"partition": 0, "next_offset": next_offset, "counts": counts}


@pytest.mark.parametrize(
    ("told", "silenced", "mismatches"),
    [
        ([line(2, applied=2), line(6, applied=1, unchanged=1, dead_lettered=1), line(7, ignored=1)], 0, 0),
        ([line(4, applied=4), line(7, ignored=1)], 1, 0),
        ([line(4, applied=4), line(7, ignored=1)], 0, 1),
        ([line(4, applied=4)], 0, 1),
        ([line(4, applied=4), line(7, dead_lettered=1, ignored=1), line(7, ignored=1)], 0, 1),
        ([line(4, applied=4), line(7, ignored=2)], 0, 1),
    ],
    ids=["whole", "one killed", "one lost", "end lost", "twice", "wrong fate"],
)
def test_every_record_has_to_be_counted_once_as_what_it_is(
    told: list[dict[str, Any]], silenced: int, mismatches: int
) -> None:
    assert len(list(witnessed.miscounted(told, FATES, silenced))) == mismatches


def test_the_table_counts_mismatches_by_kind() -> None:
    told = str(
        Report(1, mismatches=["the state of a is 1, not 2", "no dead letter of (0, 1)", "the state of b is 1, not 2"])
    )
    assert [line.split() for line in told.splitlines()[-3:]] == [
        ["mismatches", "3"],
        ["no", "dead", "...", "1"],
        ["the", "state", "...", "2"],
    ]
