"""Which dead letters go back, and how that is remembered."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consumer.core.decode import SNAPSHOT_TIME_HEADER
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome
from consumer.runtime.dead_letters import REDRIVES_HEADER, DeadLetter, dead_letter, opened
from consumer.runtime.redrive import (
    MARKER_HEADER,
    Batch,
    Destination,
    Fate,
    Ledger,
    MarkerError,
    Selection,
    fate,
    is_marker,
)
from consumer.runtime.republish import redriven
from tests.strategies import BASE_MS, make_record

TOPIC = "updates"
LETTERS_TOPIC = "letters"
LETTER = DeadLetter(1, 7, 5_000, "too_large", "", "1", "", 0, Record(TOPIC, 2, 70, 4_000, b"k", b"v"))
DESTINATION = Destination(TOPIC, 4, 3)


def at(offset: int) -> DeadLetter:
    return replace(LETTER, offset=offset)


def marker_of(batch: Batch, offset: int) -> Record:
    """A batch's marker as it is read."""
    copy = batch.marker(LETTERS_TOPIC, LETTER.partition)
    return Record(copy.topic, LETTER.partition, offset, 0, copy.key, copy.value, copy.headers)


@given(st.lists(st.lists(st.booleans(), max_size=12), max_size=6))
def test_a_ledger_holds_what_the_markers_name_and_nothing_else(transactions: list[list[bool]]) -> None:
    """Each run looks at all letters, and takes of those that are left the ones that its filter holds."""
    ledger, gone = Ledger(), set[int]()
    for number, held in enumerate(transactions):
        batch = Batch()
        for offset, is_held in enumerate(held):
            if is_held and offset not in ledger:
                batch.add(at(offset))
                gone.add(offset)
            else:
                batch.skip()
        if batch.letters:
            assert ledger.note(marker_of(batch, 100 + number))
    assert {offset for offset in range(-1, 14) if offset in ledger} == gone


@given(st.sets(st.integers(0, 40)))
def test_ranges_do_not_reach_across_what_was_skipped(offsets: set[int]) -> None:
    batch, ledger = Batch(), Ledger()
    for offset in range(41):
        if offset in offsets:
            batch.add(at(offset))
        else:
            batch.skip()
    ledger.note(marker_of(batch, 50))
    assert [letter.offset for letter in batch.letters] == sorted(offsets)
    assert {offset for offset in range(42) if offset in ledger} == offsets


def test_a_marker_tells_how_many_it_names_and_is_no_dead_letter() -> None:
    batch = Batch()
    batch.add(at(3))
    batch.add(at(4))
    marker = marker_of(batch, 9)
    assert is_marker(marker)
    assert dict(marker.headers) == {MARKER_HEADER: b"2"}
    assert marker.value == b'{"redriven":[[3,4]]}'
    assert opened(marker) is None


def test_a_record_that_is_no_marker_is_not_noted() -> None:
    assert not Ledger().note(Record(LETTERS_TOPIC, 0, 1, 0, None, b'{"redriven":[[0,9]]}'))


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"redriven":[[1]]}', b'{"redriven":"all"}'])
def test_a_marker_that_cannot_be_read_is_an_error_with_its_place(value: bytes | None) -> None:
    marker = Record(LETTERS_TOPIC, 3, 8, 0, None, value, ((MARKER_HEADER, b"1"),))
    with pytest.raises(MarkerError, match="partition 3, offset 8"):
        Ledger().note(marker)


@pytest.mark.parametrize(
    ("letter", "found"),
    [
        (LETTER, "redrive"),
        (at(3), "redriven"),
        (replace(LETTER, left_out="dropped"), "left_out"),
        (replace(LETTER, original=replace(LETTER.original, topic="other")), "other_topic"),
        (replace(LETTER, original=replace(LETTER.original, partition=3)), "redrive"),
        (replace(LETTER, original=replace(LETTER.original, partition=4)), "no_partition"),
        (replace(LETTER, redrives=2), "redrive"),
        (replace(LETTER, redrives=3), "too_often"),
    ],
)
def test_a_dead_letter_has_a_fate(letter: DeadLetter, found: Fate) -> None:
    batch, ledger = Batch(), Ledger()
    batch.add(at(3))
    ledger.note(marker_of(batch, 20))
    assert fate(letter, ledger, DESTINATION) == found


@pytest.mark.parametrize(
    ("selection", "holds"),
    [
        (Selection(), True),
        (Selection(reasons=frozenset({"too_large", "late"})), True),
        (Selection(reasons=frozenset({"late"})), False),
        (Selection(keys=frozenset({b"k"})), True),
        (Selection(keys=frozenset({b"K"})), False),
        (Selection(partitions=frozenset({2})), True),
        (Selection(partitions=frozenset({1})), False),
        (Selection(since_ms=5_000), True),
        (Selection(since_ms=5_001), False),
        (Selection(until_ms=5_001), True),
        (Selection(until_ms=5_000), False),
        (Selection(reasons=frozenset({"too_large"}), partitions=frozenset({1})), False),
    ],
)
def test_a_selection_holds_what_fits_all_of_it(selection: Selection, holds: bool) -> None:  # noqa: FBT001 - a column
    assert selection.holds(LETTER) is holds


def returned(record: Record) -> DeadLetter:
    """What is read of the dead letter of a record."""
    letter = dead_letter(
        record, Outcome("dead_lettered", "too_large"), keep_payload=True, payload_bytes_max=10_000, version="1"
    )
    read = opened(Record(LETTERS_TOPIC, record.partition, 0, 0, letter.key, letter.value, tuple(letter.headers)))
    assert read is not None
    return read


def test_what_goes_back_and_can_be_read_tells_its_snapshot_time() -> None:
    stamp = (SNAPSHOT_TIME_HEADER, str(BASE_MS + 1_000).encode())
    for record in (make_record({"id": "c1"}, seconds=1), make_record({"id": "c1"}, seconds=2, headers=(stamp,))):
        assert redriven(returned(record), Rules()).headers == (stamp, (REDRIVES_HEADER, b"1"))


@pytest.mark.parametrize("headers", [(), ((SNAPSHOT_TIME_HEADER, b"1767225600000"),)])
def test_what_goes_back_is_the_original_and_each_return_counts(headers: Sequence[tuple[str, bytes]]) -> None:
    record = Record(TOPIC, 2, 70, 4_000, b"\xff", b"not json", tuple(headers))
    for attempt in (b"1", b"2", b"3"):
        letter = returned(record)
        assert fate(letter, Ledger(), DESTINATION) == "redrive"
        copy = redriven(letter, Rules())
        assert (copy.topic, copy.partition, copy.key, copy.value) == (TOPIC, 2, b"\xff", b"not json")
        assert copy.timestamp_ms == record.timestamp_ms
        assert copy.headers == (*headers, (REDRIVES_HEADER, attempt))
        record = replace(record, headers=copy.headers)
    assert fate(returned(record), Ledger(), DESTINATION) == "too_often"
