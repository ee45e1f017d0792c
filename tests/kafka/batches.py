"""Record batches in the bytes that a broker returns, also such as no producer of ours would write."""

import gzip
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import cramjam
from aiokafka import AIOKafkaProducer, TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from consumer.kafka.patches.whole_batches import WholeBatches

HEADER_BYTES: Final = 61
CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20

COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": codec.gzip_encode,
    "snappy": codec.snappy_encode,
    "raw snappy": lambda content: bytes(cramjam.snappy.compress_raw(content)),
    "lz4": codec.lz4_encode,
    "zstd": codec.zstd_encode,
}
"""By codec; of snappy in both its forms."""
_CHUNK = bytes(1 << 20)


def records_of(build: DefaultRecordBatchBuilder) -> bytes:
    """The records section of a batch that is not compressed."""
    return bytes(build.build())[HEADER_BYTES:]


def builder() -> DefaultRecordBatchBuilder:
    """A builder of batches, for `records_of`."""
    return DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )


def build_batch(
    base_offset: int,
    content: bytes,
    count: int,
    *,
    attributes: int = 0,
    last_delta: int | None = None,
    first_ms: int = 0,
    max_ms: int = 0,
    producer_id: int = -1,
) -> bytes:
    """A batch of `count` records around its records section, which is compressed as `attributes` say."""
    last_delta = count - 1 if last_delta is None else last_delta
    fields = struct.pack(">hiqqqhii", attributes, last_delta, first_ms, max_ms, producer_id, 0, 0, count)
    checksum = calc_crc32c(fields + content)
    length = HEADER_BYTES - 12 + len(content)
    return struct.pack(">qiibI", base_offset, length, 0, 2, checksum) + fields + content


def bomb(
    codec_name: str, size: int, base_offset: int = 0, *, producer_id: int = -1, key: bytes = b"k", time_ms: int = 0
) -> bytes:
    """A small batch of one record whose value are `size` zeros and more, up to the next MB."""
    chunks = -(-size // len(_CHUNK))
    tail = b"\x00" + varint(0) + varint(0) + varint(len(key)) + key + varint(chunks * len(_CHUNK))
    record = varint(len(tail) + chunks * len(_CHUNK) + 1) + tail
    attributes = CODECS[codec_name.removeprefix("raw ")] | (TRANSACTIONAL if producer_id >= 0 else 0)
    content = _compress([record, *([_CHUNK] * chunks), varint(0)], codec_name)
    return build_batch(
        base_offset, content, 1, attributes=attributes, producer_id=producer_id, first_ms=time_ms, max_ms=time_ms
    )


async def send(bootstrap_servers: str, topic: str, partition: int, content: bytes) -> None:
    """Write a batch as it is."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None)
        batch.close()
        batch._buffer = bytearray(content)
        await (await producer.send_batch(batch, topic, partition=partition))


def varint(value: int) -> bytes:
    """A number as records have it."""
    encoded = bytearray()
    encode_varint(value, encoded.append)
    return bytes(encoded)


def legacy_batch(offset: int, size: int, codec_name: str = "gzip") -> bytes:
    """A compressed message set of the format before batches, with one message of `size` zeros."""
    legacy = LegacyRecordBatchBuilder(magic=1, compression_type=CODECS[codec_name], batch_size=1 << 30)
    legacy.append(0, timestamp=1_000, key=None, value=bytes(size))
    content = bytearray(legacy.build())
    content[:8] = struct.pack(">q", offset)
    return bytes(content)


def _compress(chunks: list[bytes], codec_name: str) -> bytes:
    """Compress without ever holding all of it."""
    if codec_name == "none":
        return b"".join(chunks)
    if codec_name == "snappy":
        blocks = [bytes(cramjam.snappy.compress_raw(chunk)) for chunk in chunks]
        header = struct.pack("!bccccccBii", -126, b"S", b"N", b"A", b"P", b"P", b"Y", 0, 1, 1)
        return header + b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    if codec_name == "raw snappy":
        return bytes(cramjam.snappy.compress_raw(b"".join(chunks)))
    if codec_name == "gzip":
        output = io.BytesIO()
        with gzip.GzipFile(fileobj=output, mode="wb", compresslevel=1) as writer:
            for chunk in chunks:
                writer.write(chunk)
        return output.getvalue()
    compressor = (
        cramjam.zstd.Compressor(1)
        if codec_name == "zstd"
        else cramjam.lz4.Compressor(1, content_checksum=False, block_linked=False)
    )
    for chunk in chunks:
        compressor.compress(chunk)
    return bytes(compressor.finish())


def fetch(
    content: bytes,
    offset: int = 0,
    aborted: list[tuple[int, int]] | None = None,
    topic: str = "t",
    whole: WholeBatches | None = None,
    *,
    committed: bool = True,
) -> "fetcher.PartitionRecords":
    """What aiokafka's consumer reads a fetched partition with, from an offset on."""
    return fetcher.PartitionRecords(
        TopicPartition(topic, 0),
        fetcher.MemoryRecords(content),
        aborted,
        offset,
        key_deserializer=whole,
        value_deserializer=None,
        check_crcs=True,
        isolation_level=fetcher.READ_COMMITTED if committed else fetcher.READ_UNCOMMITTED,
    )


def record_bytes(
    delta: int,
    time_delta: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[bytes, bytes | None]] = (),
) -> bytes:
    """A record as it is in a batch."""
    parts = [b"\x00", varint(time_delta), varint(delta), _field(key), _field(value), varint(len(headers))]
    for name, content in headers:
        parts += [_field(name), _field(content)]
    body = b"".join(parts)
    return varint(len(body)) + body


def _field(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def read_offsets(fetched: Iterator[Any]) -> list[int]:
    """The offsets of all records."""
    return [record.offset for record in fetched]
