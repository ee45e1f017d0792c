"""The live harness detects the faults that it checks for. Needs no broker."""

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from consumer.core.record import Record
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic
from tests.live import contract, faults, witnessed
from tests.live.expectation import USED
from tests.live.faults import DESCRIPTORS_MAX, RESIDENT_BYTES_MAX, broken_promises
from tests.live.lost_markers import LostMarker, find_lost_markers
from tests.live.soak_table import Report, Sample
from tests.live.witness import digest
from tests.schemas.messages import publish, simulate


def sample(resident_mb: float, descriptors: int, age_s: float) -> Sample:
    return Sample(age_s, int(resident_mb * 1e6), descriptors)


def report(*samples: Sample, state_bytes: int = 0) -> Report:
    return Report(1, samples={0: list(samples)}, state_bytes=state_bytes)


def test_steady_worker_shows_no_growth() -> None:
    assert report(*(sample(100 + step % 3, 20 + step % 5, step * 10.0) for step in range(60))).growth() == []


def test_warm_up_is_no_growth() -> None:
    assert (
        report(sample(10, 3, 0), sample(60, 9, 10), *(sample(160, 30, 30.0 + step) for step in range(9))).growth() == []
    )


@pytest.mark.parametrize(("state_bytes", "count"), [(0, 1), (20_000_000, 0)])
def test_memory_beyond_the_state_is_growth(state_bytes: int, count: int) -> None:
    samples = [sample(100 + step * 2, 20, step * 10.0) for step in range(90)]
    problems = report(*samples, state_bytes=state_bytes).growth()
    assert len(problems) == count
    assert all("memory grew by" in problem for problem in problems)


def test_leaked_descriptors_are_growth() -> None:
    (problem,) = report(*(sample(100, 20 + step, step * 10.0) for step in range(90))).growth()
    assert problem.startswith("descriptors grew by")


def test_maximum_applies_to_every_worker() -> None:
    small, large = sample(100, 20, 90), sample(RESIDENT_BYTES_MAX / 1e6 + 1, DESCRIPTORS_MAX + 1, 1)
    assert len(broken_promises(Report(1, samples={0: [small], 1: [large]}))) == 2
    assert broken_promises(Report(1, samples={0: [small]})) == []


def state_record(offset: int, key: str, value: bytes | None) -> Record:
    return Record("state", 0, offset, 0, key.encode(), value)


LOG = [state_record(0, "a", b"1"), state_record(2, "b", b"1"), state_record(3, "a", b"2"), state_record(5, "b", None)]


@pytest.mark.parametrize(
    ("log_offset", "states"), [(0, {}), (1, {"a": b"1"}), (3, {"a": b"1", "b": b"1"}), (6, {"a": b"2"})]
)
def test_memory_is_compared_with_the_topic_up_to_its_offset(log_offset: int, states: dict[str, bytes]) -> None:
    def log_line(held: dict[str, bytes]) -> list[dict[str, Any]]:
        return [{"partition": 0, "log_offset": log_offset, "digest": f"{digest(held.items()):032x}"}]

    assert list(witnessed.find_wrong_memory(log_line(states), LOG)) == []
    assert len(list(witnessed.find_wrong_memory(log_line({**states, "c": b"1"}), LOG))) == 1


DISPOSITIONS = {(0, offset): USED for offset in range(4)} | {(0, 5): "dead_lettered", (0, 6): "ignored"}


def line(next_offset: int, **counts: int) -> dict[str, Any]:
    return {"partition": 0, "next_offset": next_offset, "counts": counts}


@pytest.mark.parametrize(
    ("lines", "silenced", "mismatches"),
    [
        ([line(2, applied=2), line(6, applied=1, unchanged=1, dead_lettered=1), line(7, ignored=1)], 0, 0),
        ([line(4, applied=4), line(7, ignored=1)], 1, 0),
        ([line(4, applied=4), line(7, ignored=1)], 0, 1),
        ([line(4, applied=4)], 0, 1),
        ([line(4, applied=4), line(7, dead_lettered=1, ignored=1), line(7, ignored=1)], 0, 1),
        ([line(4, applied=4), line(7, ignored=2)], 0, 1),
    ],
    ids=["whole", "one killed", "one lost", "end lost", "twice", "wrong disposition"],
)
def test_record_has_to_count_once_under_its_disposition(
    lines: list[dict[str, Any]], silenced: int, mismatches: int
) -> None:
    assert len(list(witnessed.find_wrong_counts(lines, DISPOSITIONS, silenced, Counter()))) == mismatches


def test_an_aborted_commit_may_have_been_counted_before() -> None:
    lines = [line(4, applied=4), line(7, applied=4, dead_lettered=1, ignored=1)]
    for aborts, mismatches in ((0, 1), (1, 0)):
        found = witnessed.find_wrong_counts(lines, DISPOSITIONS, 0, Counter({0: aborts}))
        assert len(list(found)) == mismatches


def test_the_table_counts_mismatches_by_kind() -> None:
    table = str(
        Report(1, mismatches=["the state of a is 1, not 2", "no dead letter of (0, 1)", "the state of b is 1, not 2"])
    )
    assert [line.split() for line in table.splitlines()[-3:]] == [
        ["mismatches", "3"],
        ["no", "dead", "...", "1"],
        ["the", "state", "...", "2"],
    ]


SKIPPED = (
    b"[kafka-request-handler-4] INFO kafka.coordinator.transaction.TransactionMarkerChannelManager - "
    b"[Transaction Marker Channel Manager 1]: Couldn't find leader endpoint for partitions %s while trying to send "
    b"transaction markers for %s, these partitions are likely deleted already and hence can be skipped\n"
)
"""The line that Kafka 4.3.1 logs."""


def test_every_partition_of_every_skip_is_a_lost_marker() -> None:
    """A line lists a few partitions as a Set and many as a HashSet; other lines are skipped."""
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


def test_unknown_wording_of_a_skip_raises() -> None:
    """A count of 0 would claim that no marker was lost."""
    with pytest.raises(ValueError, match="in other words"):
        list(find_lost_markers([b"Couldn't find leader endpoint for partitions of g-in-0\n"]))


def test_the_table_counts_lost_markers_and_repairs() -> None:
    table = str(Report(7, lost_markers=3, repaired=Counter(commit=2, abort=1)))
    rows = {name.strip(): value for name, _, value in (line.rpartition(" ") for line in table.splitlines())}
    assert rows["seed"] == "7"
    assert (rows["markers lost by the brokers"], rows["transactions repaired"]) == ("3", "3")
    assert (rows["commit"], rows["abort"]) == ("2", "1")


def test_run_chooses_among_the_given_faults() -> None:
    """Every fault comes once at first, then all repeat as long as there is time."""
    only = ["worker killed", "connections cut"]
    plan = faults.parse(["--seed", "1", "--minutes", "2", "--back-to-back", "--only", only[0], "--only", only[1]])
    assert plan == faults.Plan(seed=1, minutes=2.0, only=only, back_to_back=True)
    schedule = faults.schedule(plan, Random(plan.seed))
    assert sorted(schedule[:2]) == sorted(only)
    assert set(schedule[2:]) == set(only)


def test_run_has_all_faults_and_pauses_by_default() -> None:
    plan = faults.parse([])
    assert (plan.minutes, plan.only, plan.back_to_back) == (10, [], False)
    names = list(faults.Scene.faults())
    assert sorted(faults.schedule(plan, Random(plan.seed))[: len(names)]) == sorted(names)
    assert sorted(faults.schedule(faults.Plan(seed=1), Random(1))) == sorted(names)


def test_unknown_fault_is_answered_with_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        faults.parse(["--only", "worker kiled"])
    message = capsys.readouterr().err
    assert all(name in message for name in faults.Scene.faults())


SETTINGS = Settings(bootstrap_servers="broker:9092")
PUBLISHED = publish(simulate(Traffic(seed=4, conversations=9), 200))


def output(message: Any, **changed: Any) -> Record:
    """A record of an output topic with this value."""
    return Record("out", 2, 7, 0, b"k", None if message is None else msgspec.json.encode({**message, **changed}))


def letter(headers: dict[str, str]) -> Record:
    """A record of the dead letters topic."""
    return Record("out", 2, 7, 0, b"k", b"v", tuple((name, text.encode()) for name, text in headers.items()))


def test_outputs_that_fit_their_schemas_are_accepted() -> None:
    contract.check(SETTINGS, SETTINGS.state_topic, [output(None), *map(output, PUBLISHED["state"])])
    contract.check(SETTINGS, SETTINGS.transitions_topic, map(output, PUBLISHED["transition"]))
    contract.check(SETTINGS, SETTINGS.dead_letters_topic, map(letter, PUBLISHED["dead-letter-headers"]))
    contract.check(SETTINGS, SETTINGS.dead_letters_topic, [letter({"cc-redriven": "3"})])
    contract.check(SETTINGS, SETTINGS.input_topic, [output({})])


@pytest.mark.parametrize(
    ("topic", "record", "message"),
    [
        (SETTINGS.state_topic, output(PUBLISHED["state"][0], live="1"), 'is not of type "integer"'),
        (SETTINGS.state_topic, output(PUBLISHED["state"][0], snapshotTime="now"), 'is not a "date-time"'),
        (SETTINGS.transitions_topic, output(PUBLISHED["transition"][0], op="amend"), "is not one of"),
        (SETTINGS.dead_letters_topic, letter({"cc-reason": "late"}), "is a required property"),
    ],
    ids=["type", "time", "operation", "header"],
)
def test_an_output_that_does_not_fit_its_schema_is_noticed(topic: str, record: Record, message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{topic}, partition 2, offset 7: .*{message}"):
        contract.check(SETTINGS, topic, [record])
