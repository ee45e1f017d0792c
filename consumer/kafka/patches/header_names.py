"""A header name that is not UTF-8 does not stop a partition.

Brokers accept such a name from any producer that is not Java's.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

_TO_ASCII = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))  # noqa: PLR2004 - where ASCII ends


def install() -> None:
    """Make every consumer of this process read such records, with `?` for each byte that is not ASCII.

    May be called again. Forced by: aiokafka raises UnicodeDecodeError while it reads the record, before it hands the
    record out, and reads the same record again at the next fetch.
    """
    fetcher.MemoryRecords = _MemoryRecords
    fetcher.PartitionRecords = PartitionRecords


class _MemoryRecords(MemoryRecords):  # type: ignore[misc]  # aiokafka has no types
    """The fetched batches of a partition with their bytes, which aiokafka's reader in C does not expose."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


class PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # as above
    """The fetched records of a partition."""

    _records: Any

    def _unpack_records(self) -> Iterator[Any]:
        fetched = self._records
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:  # the records before it were handed out, and which transactions aborted is known
            self._records = _RemainingBatches(fetched.content, self.next_fetch_offset)
            yield from super()._unpack_records()


class _RemainingBatches:
    """The batches from an offset on, read by aiokafka's reader in Python."""

    def __init__(self, content: bytes, offset: int) -> None:
        batches = _Batches(content)
        self._batches: deque[Any] = deque()
        while batches.has_next():
            batch = batches.next_batch()
            if batch.next_offset > offset:
                self._batches.append(batch)

    def has_next(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> Any:
        return self._batches.popleft()


class _Batches(_MemoryRecordsPy):  # type: ignore[misc]  # as above
    def next_batch(self) -> Any:
        content = self._next_slice
        batch = super().next_batch()
        return _Batch(content) if batch.magic >= 2 else batch  # noqa: PLR2004 - older formats have no headers


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]  # as above
    def __iter__(self) -> Self:
        self._maybe_uncompress()
        position = self._pos
        try:
            for _ in range(self._num_records):
                position = _replace_names(self._buffer, position)
        except (IndexError, ValueError) as error:
            raise CorruptRecordException(f"Found invalid record structure: {error!r}") from error
        return self


def _replace_names(content: bytearray, position: int) -> int:
    """Replace the unreadable header names of the record at a position; returns the position after the record."""
    length, position = _decode_length(content, position)
    record_end = position + length
    for _ in ("attributes", "timestamp delta", "offset delta"):
        _, position = decode_varint(content, position)
    for _ in ("key", "value"):
        position = _skip_field(content, position)
    count, position = decode_varint(content, position)
    for _ in range(count):
        length, position = _decode_length(content, position)
        name = content[position : position + length]
        try:
            name.decode()
        except UnicodeDecodeError:
            content[position : position + length] = name.translate(_TO_ASCII)
        position = _skip_field(content, position + length)
    return record_end


def _decode_length(content: bytearray, position: int) -> tuple[int, int]:
    length, position = decode_varint(content, position)
    if length < 0:
        raise ValueError("a negative length")
    return length, position


def _skip_field(content: bytearray, position: int) -> int:
    """The position after a field, which begins with its length; a negative length stands for null."""
    length, begin = decode_varint(content, position)
    return int(begin + max(0, length))
