"""A small batch that holds too much is not decompressed.

A broker limits only the compressed size of a batch. 35 KB of zstd may hold 800 MB, and a worker that is killed while it
decompresses them meets them again when it has restarted, as does every other reader of the topic.
"""
# ruff: noqa: SLF001 - this is the place for it

import gzip
import io
import mmap
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record import default_records, legacy_records
from aiokafka.record.memory_records import _MemoryRecordsPy
from msgspec import Struct

from consumer.kafka.patches import header_names

try:
    from aiokafka.record._crecords import default_records as c_default_records
    from aiokafka.record._crecords import legacy_records as c_legacy_records
except ImportError:  # an installation of aiokafka without its extensions
    _READERS: tuple[Any, ...] = (default_records, legacy_records)
else:
    _READERS = (default_records, legacy_records, c_default_records, c_legacy_records)

_BUFFER_BYTES: Final = 1 << 20
"""The kept buffer: batches of default size fit into it, and memory of its own for each batch costs more than this."""
_IS_FULL: Final = "failed to write whole buffer"
"""How cramjam says that the output does not fit."""
_XERIAL_HEADER_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">i")

_bytes_max: int = 0
_buffer = bytearray(_BUFFER_BYTES)
_lock = threading.Lock()
"""Guards the buffer: cramjam releases the GIL."""


class BatchTooLargeError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """A batch that holds more than the limit once it is decompressed. Nothing of it was read."""

    def __init__(self, batch: "LargeBatch") -> None:
        super().__init__(batch)
        self.batch = batch


class LargeBatch(Struct, frozen=True):
    """What is known of such a batch without its records."""

    topic: str
    partition: int
    begin: int
    """Its first offset."""
    end: int
    """The offset after its last."""
    timestamp_ms: int
    """The largest timestamp in it, in epoch milliseconds."""
    compressed_bytes: int
    bytes_min: int
    """It holds this many bytes or more."""
    bytes_max: int
    """The limit."""


def install(bytes_max: int) -> None:
    """Bound the decompressed size of every batch that this process reads. May be called again, the last limit holds.

    A batch beyond it makes the fetch that would return its first record raise `BatchTooLargeError`, after all records
    before it were returned; the position stays. Forced by: aiokafka decompresses a batch as a whole, with functions
    that know no limit, and offers no other ones. Its readers, in C as in Python, look them up in their modules.
    """
    global _bytes_max  # noqa: PLW0603 - as the functions of the readers, one for the process
    _bytes_max = bytes_max
    for reader in _READERS:
        for name, decode in DECODERS.items():
            if hasattr(reader, name):
                setattr(reader, name, decode)
    fetcher.PartitionRecords = PartitionRecords


class TooLargeError(Exception):
    """A batch holds this many bytes or more."""

    def __init__(self, bytes_min: int) -> None:
        super().__init__(bytes_min)
        self.bytes_min = bytes_min


class PartitionRecords(header_names.PartitionRecords):
    """The fetched records of a partition."""

    _tp: TopicPartition
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        begin, content = self.next_fetch_offset, self._records.content
        try:
            yield from super()._unpack_records()
        except TooLargeError as error:
            if self.next_fetch_offset == begin:
                raise BatchTooLargeError(self._describe(content, error.bytes_min)) from error
            # Else this fetch ends before the batch, so that what it returned is not lost; the next begins with it.

    def _describe(self, content: bytes, bytes_min: int) -> LargeBatch:
        """Describe the batch that could not be read: the first that is not behind the position."""
        batches = _MemoryRecordsPy(content)
        while True:
            size = len(batches._next_slice)
            batch = batches.next_batch()
            if batch.next_offset > self.next_fetch_offset:
                break
        is_legacy = isinstance(batch, legacy_records.LegacyRecordBatch)
        return LargeBatch(
            self._tp.topic,
            self._tp.partition,
            begin=self.next_fetch_offset if is_legacy else batch.base_offset,
            end=batch.next_offset,
            timestamp_ms=-1 if is_legacy else batch.max_timestamp,
            compressed_bytes=size,
            bytes_min=bytes_min,
            bytes_max=_bytes_max,
        )


def _decode_gzip(content: Any) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as reader:
            decoded = reader.read(_bytes_max + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptRecordException(f"gzip: {error}") from error
    if len(decoded) > _bytes_max:
        raise TooLargeError(len(decoded))
    return decoded


def _decode_snappy(content: Any) -> bytes:
    """Decode raw snappy, or blocks of it with their lengths (xerial), which is what Java's producers write."""
    _assert_has_cramjam()
    view = memoryview(content)
    if not codec._detect_xerial_stream(view):
        return _decode_block(view, 0)
    blocks: list[bytes] = []
    size, position = 0, _XERIAL_HEADER_BYTES
    while position < len(view):
        begin = position + _LENGTH.size
        length = _LENGTH.unpack_from(view, position)[0] if begin <= len(view) else -1
        if length < 0:  # aiokafka would go back, for ever
            raise CorruptRecordException("snappy: a block without a valid length")
        position = begin + length
        blocks.append(_decode_block(view[begin:position], size))
        size += len(blocks[-1])
    return b"".join(blocks)


def _decode_block(block: memoryview, size_before: int) -> bytes:
    snappy, failure = codec.cramjam.snappy, codec.cramjam.DecompressionError
    try:
        size = size_before + snappy.decompress_raw_len(block)
        if size > _bytes_max:
            raise TooLargeError(size)
        return bytes(snappy.decompress_raw(block))
    except failure as error:
        raise CorruptRecordException(str(error)) from error


def _decode_lz4(content: Any) -> bytes:
    _assert_has_cramjam()
    return _decode_into_buffer(codec.cramjam.lz4.decompress_into, content)


def _decode_zstd(content: Any) -> bytes:
    _assert_has_cramjam()
    return _decode_into_buffer(codec.cramjam.zstd.decompress_into, content)


def _assert_has_cramjam() -> None:
    """Raise UnsupportedCodecError, as aiokafka's readers do, which look for a codec first."""
    if codec.cramjam is None:
        raise UnsupportedCodecError("cramjam is not installed")


def _decode_into_buffer(decode_into: Callable[[Any, Any], int], content: Any) -> bytes:
    """Decode into the kept buffer, or into memory of the size of the limit, of which the system gives what is used."""
    failure = codec.cramjam.DecompressionError
    try:
        with _lock:
            size = decode_into(content, memoryview(_buffer)[:_bytes_max])
            return bytes(memoryview(_buffer)[:size])
    except failure as error:
        if str(error) != _IS_FULL:
            raise CorruptRecordException(str(error)) from error
    if _bytes_max > _BUFFER_BYTES:
        try:
            with mmap.mmap(-1, _bytes_max) as memory:
                return memory[: decode_into(content, memory)]
        except failure as error:
            if str(error) != _IS_FULL:
                raise CorruptRecordException(str(error)) from error
    raise TooLargeError(_bytes_max + 1)


DECODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "gzip_decode": _decode_gzip,
    "snappy_decode": _decode_snappy,
    "lz4_decode": _decode_lz4,
    "zstd_decode": _decode_zstd,
}
"""By the name of the function that each replaces, in the order of their numbers in the attributes of a batch."""
