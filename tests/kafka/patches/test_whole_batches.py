"""Batches that are handed on whole have the records that aiokafka reads from them, and the same positions."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from hypothesis import assume, given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.engine.choice import choose_records
from consumer.kafka import patches
from consumer.kafka.patches import decompression, whole_batches
from consumer.kafka.patches.decompression import BatchTooLargeError
from consumer.kafka.patches.whole_batches import WholeBatches
from consumer.kafka.records import to_record
from consumer.settings import Settings
from tests.engines import engine_class
from tests.kafka.batches import (
    CODECS,
    COMPRESS,
    CONTROL,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    bomb,
    build_batch,
    fetch,
    legacy_batch,
    record_bytes,
)

TOPIC = "t"
BYTES_MAX = Settings(bootstrap_servers="localhost:1").decompressed_bytes_max
UNKNOWN_ATTRIBUTE = 0x80
MAGIC = 16
"""Where the number of its format is in a batch."""
CHECKSUM_BEGIN = 17
"""Where the checksum of a batch is, before what it is of."""


@pytest.fixture(autouse=True)
def _native() -> None:
    engine_class("native")
    patches.install(BYTES_MAX)


def test_only_the_native_engine_takes_whole_batches() -> None:
    assert choose_records("native") is not None
    assert choose_records("python") is None


def whole_of(records_max: int) -> WholeBatches:
    new_records = choose_records("native")
    assert new_records is not None
    return WholeBatches(new_records, records_max)


def read_plainly(content: bytes, offset: int, aborted: list[tuple[int, int]], *, committed: bool = True) -> Any:
    """The records that aiokafka reads, its position after them, and its error."""
    fetched = fetch(content, offset, aborted, committed=committed)
    records: list[Record] = []
    try:
        records.extend(map(to_record, fetched))
    except Exception as error:  # noqa: BLE001 - any is compared
        return records, None, type(error)
    return records, fetched.next_fetch_offset, None


def read_whole(
    content: bytes,
    offset: int,
    aborted: list[tuple[int, int]],
    records_max: int,
    positions: list[tuple[int, int]] | None = None,
    *,
    committed: bool = True,
) -> Any:
    """The same of parts. `positions` get how many records there are up to a part, and the position after it."""
    fetched = fetch(content, offset, aborted, whole=whole_of(records_max), committed=committed)
    records: list[Record] = []
    try:
        for part in fetched:
            assert 1 <= len(part) <= records_max
            records += map(to_record, part) if isinstance(part, list) else part
            if positions is not None:
                positions.append((len(records), fetched.next_fetch_offset))
    except Exception as error:  # noqa: BLE001 - any is compared
        return records, None, type(error)
    return records, fetched.next_fetch_offset, None


NAMES = st.sampled_from([b"snapshot-time", b"cc-redrives", "na\u00efve".encode(), b""])
MAYBE_BYTES = st.one_of(st.none(), st.binary(max_size=300))
RECORD = st.tuples(
    st.integers(1, 3),
    st.integers(-(2**40), 2**40),
    MAYBE_BYTES,
    MAYBE_BYTES,
    st.lists(st.tuples(NAMES, MAYBE_BYTES), max_size=2),
)
"""Its offset after the one before, its timestamp after the first, key, value and headers."""


@st.composite
def batches(draw: st.DrawFn) -> tuple[bytes, int]:
    """The batches of a partition as brokers return them, and the offset behind them."""
    content, offset = b"", draw(st.integers(0, 2**40))
    for _ in range(draw(st.integers(1, 6))):
        codec_name = draw(st.sampled_from(list(COMPRESS)))
        attributes = CODECS[codec_name.removeprefix("raw ")]
        attributes |= draw(st.sampled_from([0, 0, LOG_APPEND_TIME]))
        producer_id = draw(st.sampled_from([-1, 7, 8]))
        if producer_id >= 0:
            attributes |= draw(st.sampled_from([0, TRANSACTIONAL]))
        records = draw(st.lists(RECORD, max_size=8))
        kind = draw(st.sampled_from(["data"] * 8 + ["control", "unknown", "bad name"]))
        if kind == "bad name":
            records.append((1, 0, None, b"v", [(b"\xffbad", b"")]))
        if kind == "control":
            attributes |= CONTROL | TRANSACTIONAL
            attributes &= ~0x07
            codec_name = "none"
            records = [(1, 0, b"\x00\x00\x00" + draw(st.sampled_from([b"\x00", b"\x01"])), b"\x00" * 6, [])]
        if kind == "unknown":
            attributes |= UNKNOWN_ATTRIBUTE
        delta, parts = -1, []
        for gap, time_delta, key, value, headers in records:
            delta += gap
            parts.append(record_bytes(delta, time_delta, key, value, headers))
        if codec_name == "snappy" and not parts:  # of which there is no such thing
            codec_name, attributes = "none", attributes & ~0x07
        last = max(0, delta + draw(st.integers(0, 2)))
        first_ms, max_ms = draw(st.integers(-1, 2**42)), draw(st.integers(-1, 2**42))
        content += build_batch(
            offset, COMPRESS[codec_name](b"".join(parts)), len(parts), attributes=attributes, last_delta=last,
            first_ms=first_ms, max_ms=max_ms, producer_id=producer_id,
        )  # fmt: skip
        offset += last + 1 + draw(st.integers(0, 2))
    return content, offset


@given(st.data())
def test_records_and_positions_are_those_that_aiokafka_reads(data: st.DataObject) -> None:
    content, end = data.draw(batches())
    begin = int.from_bytes(content[:8], "big")
    offset = data.draw(st.integers(begin, end_of(content) - 1))  # brokers return the batch of an offset first
    aborted = data.draw(st.lists(st.tuples(st.sampled_from([7, 8]), st.integers(begin, end)), max_size=3))
    cut = data.draw(st.sampled_from([0, 0, 0, 1, 40]))
    content = content[: len(content) - cut]
    committed = data.draw(st.booleans())
    records_max = data.draw(st.integers(1, 9))
    positions: list[tuple[int, int]] = []
    found = read_whole(content, offset, aborted, records_max, positions, committed=committed)
    records, *_ = expected = read_plainly(content, offset, aborted, committed=committed)
    assert found == expected
    for count, position in positions:
        left = [batch for batch in map(bytes, whole_batches._split(content)) if end_of(batch) > position]
        assert read_plainly(b"".join(left), position, aborted, committed=committed)[0] == records[count:]


def end_of(content: bytes) -> int:
    """The offset after the first batch."""
    batch = DefaultRecordBatch(content)
    return int(batch.next_offset)


@given(st.data())
def test_damage_is_found_as_by_aiokafka(data: st.DataObject) -> None:
    """Damage that a checksum covers. Records before it may be handed on or not: they are read again with the batch."""
    content, _ = data.draw(batches())
    begin, covered, position = int.from_bytes(content[:8], "big"), list[int](), 0
    for batch in whole_batches._split(content):
        if batch[MAGIC] == 2:  # aiokafka mistakes the checksum of the old format behind another batch
            covered += range(position + CHECKSUM_BEGIN, position + len(batch))
        position += len(batch)
    assume(covered)
    damaged = bytearray(content)
    damaged[data.draw(st.sampled_from(covered))] ^= data.draw(st.integers(1, 255))
    records, position, error = read_plainly(bytes(damaged), begin, [])
    whole_records, whole_position, whole_error = read_whole(bytes(damaged), begin, [], 3)
    assert (whole_error, whole_position) == (error, position)
    handed_on = len(records) if error is None else min(len(records), len(whole_records))
    assert whole_records[:handed_on] == records[:handed_on]
    assert error is not None or len(whole_records) == len(records)


@given(st.data())
def test_damaged_records_are_not_taken(data: st.DataObject) -> None:
    """What aiokafka's reader in Python refuses is refused here too, and the rest is read in the same way.

    Its reader in C may crash at such records, which no broker accepts.
    """
    parts = [record_bytes(*record) for record in data.draw(st.lists(RECORD, max_size=4))]
    damaged = bytearray(b"".join(parts) or b"\x00")
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    count = len(parts) + data.draw(st.sampled_from([0, 0, 0, 1]))
    new_records = choose_records("native")
    assert new_records is not None
    found = new_records(TOPIC, 0)
    if not found.add(bytes(damaged), count, 0, 0, None, 0):
        return
    expected: list[Record] = []
    next_offset = 0
    for record in _DefaultRecordBatchPy(build_batch(0, bytes(damaged), count)):
        if record.offset >= next_offset:
            next_offset = record.offset + 1
            headers = tuple(record.headers)
            expected.append(Record(TOPIC, 0, record.offset, record.timestamp, record.key, record.value, headers))
    assert list(found) == expected


def test_message_set_of_the_old_format_is_read_plainly() -> None:
    content = legacy_batch(5, 20)
    assert read_whole(content, 5, [], 3) == read_plainly(content, 5, [])


def test_parts_are_as_long_as_the_lane_wants() -> None:
    """Batches share a part, and are cut where it is full. The position is behind the part, not behind the batch."""
    contents = [
        build_batch(
            10 * number, b"".join(record_bytes(delta, 0, b"k", b"v", []) for delta in range(5)), 5, last_delta=7
        )
        for number in range(3)
    ]
    fetched = fetch(b"".join(contents), 2, [], whole=whole_of(4))
    parts = [([record.offset for record in part], fetched.next_fetch_offset) for part in fetched]
    assert parts == [([2, 3, 4, 10], 11), ([11, 12, 13, 14], 18), ([20, 21, 22, 23], 24), ([24], 28)]
    assert fetched.next_fetch_offset == 28


def test_batch_that_is_too_large_comes_after_what_is_before_it() -> None:
    small = build_batch(0, b"".join(record_bytes(delta, 0, b"k", b"v", []) for delta in range(3)), 3)
    fetched = fetch(small + bomb("zstd", BYTES_MAX, 3), 0, [], whole=whole_of(10))
    assert [record.offset for record in next(fetched)] == [0, 1, 2]
    assert fetched.next_fetch_offset == 3
    with pytest.raises(BatchTooLargeError) as refused:
        next(fetched)
    assert refused.value.batch.begin == 3


def test_large_batches_are_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part ends when it holds some megabytes, however few records these are."""
    monkeypatch.setattr(whole_batches, "_BYTES_MAX", 1_000)
    contents = [build_batch(offset, record_bytes(0, 0, b"k", b"v" * 600, []), 1) for offset in range(5)]
    fetched = fetch(b"".join(contents), 0, [], whole=whole_of(10))
    assert [len(part) for part in fetched] == [2, 2, 1]


def test_batch_of_very_many_records_is_read_plainly() -> None:
    """What is kept of each record while it waits is more than a small record."""
    count = 32_769
    content = b"".join(record_bytes(delta, 0, None, None, []) for delta in range(count))
    fetched = fetch(build_batch(0, content, count), 0, [], whole=whole_of(500))
    part = next(fetched)
    assert isinstance(part, list)
    assert len(part) == 500


def test_ordinary_batches_are_not_read_by_aiokafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression.PartitionRecords, "_unpack_records", lambda _: pytest.fail("read plainly"))
    for codec_name in COMPRESS:
        record = record_bytes(0, 5, b"k", b"v", [("na\u00efve".encode(), None)])
        attributes = CODECS[codec_name.removeprefix("raw ")] | TRANSACTIONAL
        batch = build_batch(7, COMPRESS[codec_name](record), 1, attributes=attributes, first_ms=10, producer_id=3)
        (part,) = fetch(batch, 0, [], whole=whole_of(5))
        (found,) = part
        assert found == Record(TOPIC, 0, 7, 15, b"k", b"v", (("na\u00efve", None),))


def test_records_are_a_sequence() -> None:
    content = b"".join(record_bytes(delta, 0, b"k%d" % delta, None, []) for delta in range(3))
    (part,) = fetch(build_batch(0, content, 3), 0, [], whole=whole_of(5))
    assert [part[0].key, part[-1].key, len(part)] == [b"k0", b"k2", 3]
    assert part[1] is part[1]  # a long record is processed in stages, for which it has to be the same
    for index in (3, -4):
        with pytest.raises(IndexError):
            part[index]
