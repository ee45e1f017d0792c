"""The records of a fetched batch are handed on as they are, without an object for each.

aiokafka makes two of every record, and we a third. What is out of the ordinary it reads as ever: old formats, control
batches, codecs and attributes that nothing is known of here, batches that are damaged or too large, and header names
that are not UTF-8.
"""

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.util import calc_crc32c
from msgspec import Struct

from consumer.kafka.patches import decompression

if TYPE_CHECKING:
    from consumer.engine._native import FetchedRecords

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH: Final = struct.Struct(">qi")
_MAGIC: Final = 2
_CHECKSUM_BEGIN: Final = struct.calcsize(">qiibI")
_CODEC, _IS_APPEND_TIME, _IS_TRANSACTIONAL = 0x07, 0x08, 0x10
_ORDINARY: Final = _CODEC | _IS_APPEND_TIME | _IS_TRANSACTIONAL
"""The attributes of batches of records. A control batch has another one."""
_DECODERS: Final[tuple[Callable[[memoryview], bytes], ...]] = (bytes, *decompression.DECODERS.values())
"""By codec."""
_BYTES_MAX: Final = 8_388_608
"""Decompressed batches that wait for the lane to take their records, in bytes, but for the last of them."""


class WholeBatches(Struct):
    """How a consumer hands records on. To be given to it as its `key_deserializer`.

    Then every "record" that it returns is part of a partition: `FetchedRecords`, or a list of ConsumerRecords, of
    `records_max` records at most. Forced by: what reads the batches gets nothing of the consumer but its deserializers.
    """

    new_records: "Callable[[str, int], FetchedRecords]"
    """Makes an empty one for a topic and a partition."""
    records_max: int
    """May be changed before each fetch."""


def install() -> None:
    """Let consumers with `WholeBatches` return their records so. May be called again.

    Forced by: aiokafka makes an object of every record while it reads a batch, and offers nothing else.
    """
    fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(decompression.PartitionRecords):
    _tp: TopicPartition
    _key_deserializer: Any
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        whole = self._key_deserializer
        if not isinstance(whole, WholeBatches):
            yield from super()._unpack_records()
            return
        self._key_deserializer = None
        waiting = whole.new_records(self._tp.topic, self._tp.partition)
        waiting_bytes = 0
        for batch in _split(self._records.content):
            size = self._add(batch, waiting)
            if size is None:
                yield from self._hand_on(waiting, whole, least=1)
                yield from self._read_plainly(batch, whole)
                waiting_bytes = 0
                continue
            waiting_bytes += size
            yield from self._hand_on(waiting, whole)
            if waiting_bytes > _BYTES_MAX:
                yield from self._hand_on(waiting, whole, least=1)
                waiting_bytes = 0
        yield from self._hand_on(waiting, whole, least=1)

    def _add(self, batch: memoryview, waiting: "FetchedRecords") -> int | None:
        """Add the records of a batch that are to be read, and pass it.

        Returns the size of what was added; None, and adds nothing, if the batch is out of the ordinary.
        """
        if len(batch) < _HEADER.size:
            return None
        base_offset, _, _, magic, checksum, attributes, *rest = _HEADER.unpack_from(batch)
        last_delta, first_ms, max_ms, producer_id, _, _, count = rest
        if magic != _MAGIC or attributes & ~_ORDINARY or attributes & _CODEC >= len(_DECODERS):
            return None
        if self._check_crcs and calc_crc32c(batch[_CHECKSUM_BEGIN:]) != checksum:
            return None
        if self._isolation_level == fetcher.READ_COMMITTED:
            self._consume_aborted_up_to(base_offset)
            if attributes & _IS_TRANSACTIONAL and producer_id in self._aborted_producers:
                self.next_fetch_offset = base_offset + last_delta + 1
                return 0
        try:
            content = _DECODERS[attributes & _CODEC](batch[_HEADER.size :])
        except (decompression.TooLargeError, CorruptRecordException, UnsupportedCodecError):
            return None
        append_ms = max_ms if attributes & _IS_APPEND_TIME else None
        if not waiting.add(content, count, base_offset, first_ms, append_ms, self.next_fetch_offset):
            return None
        self.next_fetch_offset = base_offset + last_delta + 1
        return len(content)

    def _hand_on(self, waiting: "FetchedRecords", whole: WholeBatches, least: int = 0) -> "Iterator[FetchedRecords]":
        """Hand on full parts, or with `least` all that are so long. Meanwhile the position is behind such a part."""
        reached = self.next_fetch_offset
        while len(waiting) >= (least or whole.records_max):
            part = waiting.take(whole.records_max)
            self.next_fetch_offset = (part.next_offset if len(waiting) else None) or reached
            yield part
        self.next_fetch_offset = reached

    def _read_plainly(self, batch: memoryview, whole: WholeBatches) -> Iterator[list[Any]]:
        """Read a batch as aiokafka does, with its errors."""
        self._records = fetcher.MemoryRecords(bytes(batch))
        records = super()._unpack_records()
        while part := list(islice(records, whole.records_max)):
            yield part


def _split(content: bytes) -> Iterator[memoryview]:
    """The batches of a partition; the last one that was fetched may be cut off, and then is none."""
    view, begin = memoryview(content), 0
    while len(view) - begin >= _LENGTH.size:
        _, length = _LENGTH.unpack_from(view, begin)
        end = begin + _LENGTH.size + length
        if length < 0:
            yield view[begin:]
            return
        if end > len(view):
            return
        yield view[begin:end]
        begin = end
