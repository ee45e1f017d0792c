"""A batch of records that were packed before, by an engine."""
# ruff: noqa: SLF001 - this is the place for it

import time

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from consumer.engine.output import PackedRecords

_FORMAT = 2
_HEADER_BYTES: int = _DefaultRecordBatchBuilderPy.HEADER_STRUCT.size


def records_bytes_max(producer: AIOKafkaProducer) -> int:
    """How many bytes of records a producer's batch may hold: it stays below its size, as aiokafka's builder in C does.

    Forced by: as `PackedBatch`.
    """
    return max(0, int(producer._message_accumulator._batch_size) - _HEADER_BYTES - 1)


class PackedBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka has no types
    """A full batch for `send_batch`, with the time of now. Compression, header and checksum are aiokafka's.

    Forced by: the batches of `create_batch()` take records one by one, as Python objects.
    """

    def __init__(self, producer: AIOKafkaProducer, packed: PackedRecords) -> None:
        accumulator = producer._message_accumulator
        transactions = accumulator._txn_manager
        builder = _DefaultRecordBatchBuilderPy(
            _FORMAT,
            accumulator._compression_type,
            is_transactional=transactions is not None and transactions.transactional_id is not None,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=accumulator._batch_size,
        )
        builder._buffer += packed.content
        builder._num_records = packed.count
        builder._last_offset = packed.count - 1
        builder._first_timestamp = builder._max_timestamp = int(time.time() * 1_000)
        self._builder = builder
        self._relative_offset = packed.count
        self._buffer = None
        self._closed = True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Override, since the original insists on its own builder."""
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
