"""The harness notices what it is there to notice. Needs no broker."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from aiokafka import TopicPartition

from consumer.core.record import Record
from tests.live import faults, witnessed
from tests.live.expectation import USED
from tests.live.faults import DESCRIPTORS_MAX, RESIDENT_BYTES_MAX, broken_promises
from tests.live.lost_markers import LostMarker, find_lost_markers
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


SKIPPED = (
    b"[kafka-request-handler-4] INFO kafka.coordinator.transaction.TransactionMarkerChannelManager - "
    b"[Transaction Marker Channel Manager 1]: Couldn't find leader endpoint for partitions %s while trying to send "
    b"transaction markers for %s, these partitions are likely deleted already and hence can be skipped\n"
)
"""As Kafka 4.3.1 writes it."""


def test_every_partition_of_every_skip_is_a_lost_marker() -> None:
    """A line names a few partitions as a Set and many as a HashSet; the lines around it say nothing of markers."""
    log = [
        b"[main] INFO kafka.server.KafkaRaftServer - Kafka Server started\n",
        SKIPPED % (b"Set(my-dead-letters-0, __consumer_offsets-3)", b"g-in-0"),
        b"Couldn't find a leader endpoint of anything\n",
        SKIPPED % (b"HashSet(a-10)", b"g-in-1"),
        SKIPPED % (b"Set(a-10)", b"g-in-1"),
    ]
    assert list(find_lost_markers(log)) == [
        LostMarker("g-in-0", TopicPartition("my-dead-letters", 0)),
        LostMarker("g-in-0", TopicPartition("__consumer_offsets", 3)),
        LostMarker("g-in-1", TopicPartition("a", 10)),
        LostMarker("g-in-1", TopicPartition("a", 10)),
    ]


def test_a_skip_in_other_words_is_noticed() -> None:
    """A count of 0 would say that nothing was lost."""
    with pytest.raises(ValueError, match="in other words"):
        list(find_lost_markers([b"Couldn't find leader endpoint for partitions of g-in-0\n"]))


def test_the_table_counts_lost_markers_and_repairs() -> None:
    table = str(Report(7, lost_markers=3, repaired=Counter(commit=2, abort=1)))
    rows = {name.strip(): told for name, _, told in (line.rpartition(" ") for line in table.splitlines())}
    assert rows["seed"] == "7"
    assert (rows["markers lost by the brokers"], rows["transactions repaired"]) == ("3", "3")
    assert (rows["commit"], rows["abort"]) == ("2", "1")


def test_a_run_chooses_among_the_faults_it_is_given() -> None:
    """Each of them once at first, and then again and again as long as there is time."""
    only = ["worker killed", "connections cut"]
    plan = faults.parse(["--seed", "1", "--minutes", "2", "--back-to-back", "--only", only[0], "--only", only[1]])
    assert plan == faults.Plan(seed=1, minutes=2.0, only=only, back_to_back=True)
    schedule = faults.schedule(plan, Random(plan.seed))
    assert sorted(schedule[:2]) == sorted(only)
    assert set(schedule[2:]) == set(only)


def test_a_run_has_all_faults_and_waits_unless_asked() -> None:
    plan = faults.parse([])
    assert (plan.minutes, plan.only, plan.back_to_back) == (10, [], False)
    every = list(faults.Scene.faults())
    assert sorted(faults.schedule(plan, Random(plan.seed))[: len(every)]) == sorted(every)
    assert sorted(faults.schedule(faults.Plan(seed=1), Random(1))) == sorted(every)


def test_an_unknown_fault_is_answered_with_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        faults.parse(["--only", "worker kiled"])
    told = capsys.readouterr().err
    assert all(name in told for name in faults.Scene.faults())
