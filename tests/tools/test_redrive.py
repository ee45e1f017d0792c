"""Which dead letters go back, and how markers remember them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.dead_letters import (
    MARKER_HEADER,
    REDRIVES_HEADER,
    DeadLetter,
    DeadLetterFormat,
    build,
    is_marker,
    parse,
)
from consumer.tools.redrive import (
    Batch,
    Decision,
    Destination,
    MarkerError,
    RedrivenOffsets,
    Selection,
    Verdict,
    decide,
)
from consumer.tools.republish import redrive
from tests.strategies import BASE_MS, make_record
from tests.worker.scenes import call

TOPIC = "updates"
LETTERS_TOPIC = "letters"
LETTER = DeadLetter(1, 7, 5_000, "too_large", "", "1", "", 0, Record(TOPIC, 2, 70, 4_000, b"k", b"v"))
DESTINATION = Destination(TOPIC, 4, 3, Rules(), again=True)


def at(offset: int) -> DeadLetter:
    return replace(LETTER, offset=offset)


def read_marker(batch: Batch, offset: int) -> Record:
    """A batch's marker, as it is read from the topic."""
    marker = batch.marker(LETTERS_TOPIC, LETTER.partition)
    assert (marker.topic, marker.partition) == (LETTERS_TOPIC, LETTER.partition)
    return Record(LETTERS_TOPIC, LETTER.partition, offset, 0, marker.key, marker.value, tuple(marker.headers))


@given(st.lists(st.lists(st.booleans(), max_size=12), max_size=6))
def test_redriven_offsets_are_exactly_those_that_markers_name(runs: list[list[bool]]) -> None:
    """Every run reads all dead letters, and redrives those that its filter selects and that are left."""
    redriven, expected = RedrivenOffsets(), set[int]()
    for number, selected in enumerate(runs):
        batch = Batch()
        for offset, is_selected in enumerate(selected):
            if is_selected and offset not in redriven:
                batch.add(at(offset))
                expected.add(offset)
            else:
                batch.skip()
        if batch.letters:
            redriven.add(read_marker(batch, 100 + number))
    assert {offset for offset in range(-1, 14) if offset in redriven} == expected


@given(st.sets(st.integers(0, 40)))
def test_no_range_spans_a_skipped_dead_letter(offsets: set[int]) -> None:
    batch, redriven = Batch(), RedrivenOffsets()
    for offset in range(41):
        if offset in offsets:
            batch.add(at(offset))
        else:
            batch.skip()
    redriven.add(read_marker(batch, 50))
    assert [letter.offset for letter in batch.letters] == sorted(offsets)
    assert {offset for offset in range(42) if offset in redriven} == offsets


def test_a_marker_is_not_a_dead_letter() -> None:
    batch = Batch()
    batch.add(at(3))
    batch.add(at(4))
    marker = read_marker(batch, 9)
    assert is_marker(marker)
    assert dict(marker.headers) == {MARKER_HEADER: b"2"}
    assert marker.value == b'{"redriven":[[3,4]]}'
    assert parse(marker) is None


def test_a_record_without_the_marker_header_names_nothing() -> None:
    redriven = RedrivenOffsets()
    redriven.add(Record(LETTERS_TOPIC, 0, 1, 0, None, b'{"redriven":[[0,9]]}'))
    assert 0 not in redriven


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"redriven":[[1]]}', b'{"redriven":"all"}'])
def test_a_broken_marker_is_an_error_with_its_offset(value: bytes | None) -> None:
    marker = Record(LETTERS_TOPIC, 3, 8, 0, None, value, ((MARKER_HEADER, b"1"),))
    with pytest.raises(MarkerError, match="partition 3, offset 8"):
        RedrivenOffsets().add(marker)


@pytest.mark.parametrize(
    ("letter", "decision"),
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
def test_decision_about_a_dead_letter(letter: DeadLetter, decision: Decision) -> None:
    batch, redriven = Batch(), RedrivenOffsets()
    batch.add(at(3))
    redriven.add(read_marker(batch, 20))
    assert decide(letter, redriven, DESTINATION) == Verdict(decision)


USABLE = call(70, "connected", 1)


@pytest.mark.parametrize(
    ("original", "redrives", "verdict"),
    [
        (USABLE, 0, Verdict("redrive")),
        (USABLE, 1, Verdict("came_back")),
        (USABLE, 3, Verdict("too_often")),
        (replace(USABLE, key=b"other"), 0, Verdict("would_fail", "key_mismatch")),
        (replace(USABLE, value=b"not json"), 1, Verdict("would_fail", "bad_json")),
        (replace(USABLE, value=None), 0, Verdict("redrive")),
    ],
)
def test_what_would_fail_again_or_came_back_stays(original: Record, redrives: int, verdict: Verdict) -> None:
    letter = replace(LETTER, original=original, redrives=redrives)
    destination = replace(DESTINATION, topic=original.topic, again=False)
    assert decide(letter, RedrivenOffsets(), destination) == verdict
    expected = "too_often" if redrives == 3 else "redrive"
    assert decide(letter, RedrivenOffsets(), replace(destination, again=True)).decision == expected


def test_a_raised_limit_lets_a_large_record_go_back() -> None:
    size = len(USABLE.value or b"")
    letter, destination = replace(LETTER, original=USABLE), replace(DESTINATION, topic=USABLE.topic, again=False)
    for bytes_max, verdict in ((size - 1, Verdict("would_fail", "too_large")), (size, Verdict("redrive"))):
        rules = Rules(record_bytes_max=bytes_max)
        assert decide(letter, RedrivenOffsets(), replace(destination, rules=rules)) == verdict


@pytest.mark.parametrize(
    ("selection", "matches"),
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
def test_a_selection_matches_by_all_its_filters(selection: Selection, matches: bool) -> None:  # noqa: FBT001 - a column
    assert selection.matches(LETTER) is matches


@pytest.mark.parametrize(
    "key", [b"c1", b'"c1"', b"\0\0\0\0\5c1", b'{"schema":null,"payload":"c1"}', None, b'"c1', b"c2"]
)
def test_a_key_is_selected_by_the_id_that_it_spells(key: bytes | None) -> None:
    letter = replace(LETTER, original=replace(LETTER.original, key=key))
    assert Selection(keys=frozenset({b"c1"})).matches(letter) is (key not in {None, b'"c1', b"c2"})
    assert key is None or Selection(keys=frozenset({key})).matches(letter)


def reject(record: Record) -> DeadLetter:
    """The dead letter of a record, as it is read."""
    form = DeadLetterFormat(keep_payload=True, payload_bytes_max=10_000, version="1")
    letter = build(record, DeadLettered("too_large", "", None), form)
    read = parse(Record(LETTERS_TOPIC, record.partition, 0, 0, letter.key, letter.value, tuple(letter.headers)))
    assert read is not None
    return read


def test_a_readable_record_goes_back_with_its_snapshot_time() -> None:
    stamp = (SNAPSHOT_TIME_HEADER, str(BASE_MS + 1_000).encode())
    for record in (make_record({"id": "c1"}, seconds=1), make_record({"id": "c1"}, seconds=2, headers=(stamp,))):
        assert redrive(reject(record), Rules()).headers == (stamp, (REDRIVES_HEADER, b"1"))


@pytest.mark.parametrize("headers", [(), ((SNAPSHOT_TIME_HEADER, b"1767225600000"),)])
def test_the_original_goes_back_and_attempts_are_counted(headers: Sequence[tuple[str, bytes]]) -> None:
    record = Record(TOPIC, 2, 70, 4_000, b"\xff", b"not json", tuple(headers))
    for attempt in (b"1", b"2", b"3"):
        letter = reject(record)
        assert decide(letter, RedrivenOffsets(), DESTINATION) == Verdict("redrive")
        output = redrive(letter, Rules())
        assert (output.topic, output.partition, output.key, output.value) == (TOPIC, 2, b"\xff", b"not json")
        assert output.timestamp_ms == record.timestamp_ms
        assert output.headers == (*headers, (REDRIVES_HEADER, attempt))
        record = replace(record, headers=output.headers)
    assert decide(reject(record), RedrivenOffsets(), DESTINATION) == Verdict("too_often")
