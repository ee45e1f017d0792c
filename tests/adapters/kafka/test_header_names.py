"""Records whose header names are no UTF-8 are read as any other, whatever is around them."""

import struct

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from consumer.adapters.kafka.header_names import blur_unreadable

READABLE = "na\u00efve"
LONG = 300
"""Takes two bytes to tell its own length."""
_CODECS = {"none": 0, "zstd": 4}
_HEADER_BYTES = 61
_TRANSACTIONAL = 0x10


def batch(offset: int, names: list[bytes], codec: str = "none", producer_id: int = -1) -> bytes:
    """A batch of a record per name, as any producer might write it."""
    marks = [b"m" * (len(name) - 1) + bytes([97 + number]) for number, name in enumerate(names)]
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=int(producer_id >= 0),
        producer_id=producer_id,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1 << 20,
    )
    for number, mark in enumerate(marks):
        headers = [(READABLE, None), (mark.decode(), b"v"), ("snapshot-time", b"5")]
        builder.append(number, timestamp=1_000, key=b"k%d" % number, value=b"x" * LONG, headers=headers)
    built = bytes(builder.build())
    head, records = bytearray(built[:_HEADER_BYTES]), built[_HEADER_BYTES:]
    for mark, name in zip(marks, names, strict=True):
        records = records.replace(mark, name)
    if codec == "zstd":
        records = bytes(cramjam.zstd.compress(records))
    head[:8] = struct.pack(">q", offset)
    head[8:12] = struct.pack(">i", _HEADER_BYTES - 12 + len(records))
    head[21:23] = struct.pack(">h", _CODECS[codec] | (_TRANSACTIONAL if producer_id >= 0 else 0))
    head[17:21] = struct.pack(">I", calc_crc32c(bytes(head[21:]) + records))
    return bytes(head) + records


def read(content: bytes, offset: int = 0, aborted: list[tuple[int, int]] | None = None) -> list[tuple[int, str]]:
    """Offsets and the name in question, as aiokafka's consumer gives them out."""
    blur_unreadable()
    records = fetcher.PartitionRecords(
        TopicPartition("t", 0),
        fetcher.MemoryRecords(content),
        aborted,
        offset,
        key_deserializer=None,
        value_deserializer=None,
        check_crcs=True,
        isolation_level=fetcher.READ_COMMITTED,
    )
    found = []
    for each in records:
        (readable, nothing), (name, value), stamped = each.headers
        assert (readable, nothing, value, stamped) == (READABLE, None, b"v", ("snapshot-time", b"5"))
        assert (each.key, each.value, each.timestamp) == (b"k%d" % (each.offset % 10), b"x" * LONG, 1_000)
        found.append((each.offset, name))
    assert records.next_fetch_offset == (found[-1][0] + 1 if found else offset)
    return found


@pytest.mark.parametrize("codec", _CODECS)
def test_a_name_that_is_no_utf_8_is_blurred_and_nothing_else_is(codec: str) -> None:
    content = batch(0, [b"good"]) + batch(10, [b"fine", b"\xff\xfebd", b"last"], codec) + batch(20, [b"\x80" * LONG])
    assert read(content + batch(30, [b"cut short"])[:-1]) == [
        (0, "good"),
        (10, "fine"),
        (11, "??bd"),
        (12, "last"),
        (20, "?" * LONG),
    ]


def test_reading_from_amid_a_batch_begins_there() -> None:
    content = batch(10, [b"\xffone", b"\xfftwo", b"\xffsix"]) + batch(20, [b"fine"])
    assert read(content, 12) == [(12, "?six"), (20, "fine")]


def test_what_was_aborted_stays_so() -> None:
    content = (
        batch(0, [b"dead"], producer_id=7)
        + batch(10, [b"\xffbad"], producer_id=8)
        + batch(20, [b"\xffdea"], producer_id=7)
        + batch(30, [b"good"], producer_id=8)
    )
    assert read(content, aborted=[(7, 0)]) == [(10, "?bad"), (30, "good")]
