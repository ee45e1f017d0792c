"""Where a rekey starts, and which key a record gets."""

import pytest

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.tools.rekey import RekeyStart, find_start
from consumer.tools.republish import rekey_record
from tests.strategies import BASE_MS, make_record


@pytest.mark.parametrize("is_target_empty", [True, False])
def test_a_rekey_that_has_begun_continues(is_target_empty: bool) -> None:  # noqa: FBT001 - a column
    start = find_start({0: 0, 1: 5}, {0: 7, 1: 5}, is_target_empty=is_target_empty)
    assert start == RekeyStart({0: 7, 1: 5}, is_new=False, lost=0)


def test_a_new_rekey_needs_an_empty_target() -> None:
    no_offsets = {0: None, 1: None}
    start = find_start({0: 3, 1: 0}, no_offsets, is_target_empty=True)
    assert start == RekeyStart({0: 3, 1: 0}, is_new=True, lost=0)
    assert find_start({0: 3, 1: 0}, no_offsets, is_target_empty=False) is None


def test_an_added_partition_is_read_from_its_beginning() -> None:
    start = find_start({0: 0, 1: 2}, {0: 4, 1: None}, is_target_empty=False)
    assert start == RekeyStart({0: 4, 1: 2}, is_new=True, lost=0)


def test_offsets_that_retention_deleted_unread_are_counted() -> None:
    start = find_start({0: 9, 1: 0}, {0: 4, 1: 1}, is_target_empty=False)
    assert start == RekeyStart({0: 9, 1: 1}, is_new=False, lost=5)


@pytest.mark.parametrize(("key", "partition"), [(None, 2), (b"other", None)])
def test_a_record_without_a_readable_id_stays_as_it_is(key: bytes | None, partition: int | None) -> None:
    """Without a key it stays in the partition with its source's number."""
    rekeyed = rekey_record(Record("a", 2, 5, 1_000, key, b"no json", (("h", b"1"),)), "b", Rules())
    output = rekeyed.output
    assert (rekeyed.outcome, output.topic, output.key, output.partition) == ("copied", "b", key, partition)
    assert (output.value, output.timestamp_ms, output.headers) == (b"no json", 1_000, (("h", b"1"),))


@pytest.mark.parametrize(("key", "outcome"), [("c1", "kept"), ("other", "rekeyed"), (None, "rekeyed")])
def test_a_record_is_keyed_by_its_conversation_id(key: str | None, outcome: str) -> None:
    """One header states its snapshot time, the first that it had."""
    header_ms = BASE_MS - 5_000
    headers = (("h", b"1"), (SNAPSHOT_TIME_HEADER, str(header_ms).encode()), (SNAPSHOT_TIME_HEADER, b"later"))
    record = make_record({"id": "c1", "participants": []}, key=key, headers=headers)
    rekeyed = rekey_record(record, "b", Rules())
    output = rekeyed.output
    assert (rekeyed.outcome, output.topic, output.key, output.partition) == (outcome, "b", b"c1", None)
    assert (output.value, output.timestamp_ms) == (record.value, record.timestamp_ms)
    assert output.headers == headers[:2]


def test_the_kafka_timestamp_becomes_the_snapshot_time_header() -> None:
    output = rekey_record(make_record({"id": "c1"}, seconds=1), "b", Rules()).output
    assert output.headers == ((SNAPSHOT_TIME_HEADER, str(BASE_MS + 1_000).encode()),)


def test_a_record_without_a_timestamp_gets_the_producers() -> None:
    output = rekey_record(Record("a", 0, 0, -1, b"c1", b"no json"), "b", Rules()).output
    assert output.timestamp_ms is None
