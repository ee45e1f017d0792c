"""A record whose header name is not UTF-8 is read like any other, whatever is around it."""

import struct
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from consumer.kafka.patches import header_names
from tests.kafka.batches import build_batch, builder, records_of

READABLE = "na\u00efve"
LONG = 300
"""A length that takes two bytes as a varint."""
_CODECS = {"none": 0, "zstd": 4}
_HEADER_BYTES = 61
_TRANSACTIONAL = 0x10


def batch(offset: int, names: list[bytes], codec: str = "none", producer_id: int = -1) -> bytes:
    """A batch with a record for each header name, as any producer may write it."""
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
    """The offset and the header name of each record, as aiokafka's consumer returns them."""
    header_names.install()
    records = unpack(fetcher.PartitionRecords, fetcher.MemoryRecords, content, offset, aborted)
    names = []
    for record in records:
        (readable, nothing), (name, value), stamped = record.headers
        assert (readable, nothing, value, stamped) == (READABLE, None, b"v", ("snapshot-time", b"5"))
        assert (record.key, record.value, record.timestamp) == (b"k%d" % (record.offset % 10), b"x" * LONG, 1_000)
        names.append((record.offset, name))
    assert records.next_fetch_offset == (names[-1][0] + 1 if names else offset)
    return names


def unpack(
    partition_records: Any, memory_records: Any, content: bytes, offset: int, aborted: list[tuple[int, int]] | None
) -> Any:
    return partition_records(
        TopicPartition("t", 0),
        memory_records(content),
        aborted,
        offset,
        key_deserializer=None,
        value_deserializer=None,
        check_crcs=True,
        isolation_level=fetcher.READ_COMMITTED,
    )


def test_aiokafka_cannot_read_a_name_that_is_not_utf_8() -> None:
    """The fact that forces the patch: if this fails, aiokafka may not need it any more."""
    partition_records, memory_records = header_names.PartitionRecords.__base__, header_names._MemoryRecords.__base__
    with pytest.raises(UnicodeDecodeError):
        next(unpack(partition_records, memory_records, batch(0, [b"\xffbad"]), 0, None))


@pytest.mark.parametrize("codec", _CODECS)
def test_only_a_name_that_is_not_utf_8_is_replaced(codec: str) -> None:
    content = batch(0, [b"good"]) + batch(10, [b"fine", b"\xff\xfebd", b"last"], codec) + batch(20, [b"\x80" * LONG])
    assert read(content + batch(30, [b"cut short"])[:-1]) == [
        (0, "good"),
        (10, "fine"),
        (11, "??bd"),
        (12, "last"),
        (20, "?" * LONG),
    ]


@pytest.mark.parametrize("damaged", [b"\x01", b"\x7f", b"\xff\xff\xff\xff\x0f"])
def test_damaged_record_behind_such_a_name_is_an_error(damaged: bytes) -> None:
    """Its length leads back, behind the end, or far behind it; all of them once ended in no KafkaError, or never."""
    record = builder()
    record.append(0, timestamp=0, key=b"k", value=b"v", headers=[("mark", b"")])
    content = records_of(record).replace(b"mark", b"\xffark") + damaged
    with pytest.raises(CorruptRecordException):
        read(build_batch(0, content, 2**31 - 1))


def test_reading_begins_in_the_middle_of_a_batch() -> None:
    content = batch(10, [b"\xffone", b"\xfftwo", b"\xffsix"]) + batch(20, [b"fine"])
    assert read(content, 12) == [(12, "?six"), (20, "fine")]


def test_aborted_records_are_left_out() -> None:
    content = (
        batch(0, [b"dead"], producer_id=7)
        + batch(10, [b"\xffbad"], producer_id=8)
        + batch(20, [b"\xffdea"], producer_id=7)
        + batch(30, [b"good"], producer_id=8)
    )
    assert read(content, aborted=[(7, 0)]) == [(10, "?bad"), (30, "good")]
