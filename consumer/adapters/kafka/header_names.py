"""Header names that are no UTF-8, which a broker takes from any producer that is not Java's.

Fact of aiokafka 0.14 that shapes it: its reader decodes the names of a record's headers and raises UnicodeDecodeError
for such a one, before anybody sees the record. Reading the partition again ends at the same place, so one record would
stop a partition for ever. `blur_unreadable` makes aiokafka read on, with a question mark for each byte that is not
ASCII.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

_BLURRED = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))  # noqa: PLR2004 - where ASCII ends


def blur_unreadable() -> None:
    """Make every consumer of this process read records with such names. May be called again."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _PartitionRecords


class _Fetched(MemoryRecords):  # type: ignore[misc]  # aiokafka has no types
    """The batches of a partition in an answer, with their bytes: aiokafka's quick reader keeps them to itself."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


class _PartitionRecords(PartitionRecords):  # type: ignore[misc]  # as above
    _records: Any

    def _unpack_records(self) -> Iterator[Any]:
        fetched = self._records
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:  # the records before it were given out, and which transactions aborted is known
            self._records = _Rest(fetched.content, self.next_fetch_offset)
            yield from super()._unpack_records()


class _Rest:
    """The batches from an offset on, read by aiokafka's slow reader."""

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
        for _ in range(self._num_records):
            position = _blur(self._buffer, position)
        return self


def _blur(content: bytearray, position: int) -> int:
    """Blur the header names of the record at a position that cannot be read; returns the position after it."""
    length, position = decode_varint(content, position)
    after = int(position + length)
    for _ in range(3):  # attributes, and how far time and offset are from the batch's
        _, position = decode_varint(content, position)
    for _ in ("key", "value"):
        position = _skip(content, position)
    count, position = decode_varint(content, position)
    for _ in range(count):
        length, position = decode_varint(content, position)
        name = content[position : position + length]
        try:
            name.decode()
        except UnicodeDecodeError:
            content[position : position + length] = name.translate(_BLURRED)
        position = _skip(content, position + length)
    return after


def _skip(content: bytearray, position: int) -> int:
    """The position after a field that begins with its length, which is negative where there is none."""
    length, begin = decode_varint(content, position)
    return int(begin + max(0, length))
