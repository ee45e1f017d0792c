"""Writing records in batches, by aiokafka: shared by the lanes and the tools.

Facts of aiokafka 0.14 that shape this module:

1. `commit_transaction()` succeeds although a batch has failed. So the response to every batch is awaited before the
   offsets are added.
2. After an error that breaks a transaction, later calls fail with other errors. So the first one is looked up
   (`patches.internals.find_transaction_error`).
3. A fenced producer raises AssertionError from later calls.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from consumer.engine.output import Output, PackableOutputs, PackedRecords
from consumer.kafka.connection import connection_arguments
from consumer.kafka.errors import call
from consumer.kafka.patches.lost_responses import fail_on_lost_response
from consumer.kafka.patches.packed_batches import PackedBatch, records_bytes_max
from consumer.kafka.timeouts import consume_exception
from consumer.settings import Settings
from consumer.worker.ports import FencedError

T = TypeVar("T")
Ends = dict[TopicPartition, int]
"""By partition, the offset after the last record that was written."""


def create_producer(settings: Settings, **more: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all in-sync replicas; `more` are further arguments of aiokafka's.

    Raises ConfigurationError as `connection_arguments` does.
    """
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=settings.batch_bytes_max,
        **more,
        **connection_arguments(settings),
    )
    fail_on_lost_response(producer)
    return producer


def transactional_id(settings: Settings, name: str) -> str:
    """The transactional id of a lane (`name` is its partition) or of a tool.

    No other service has the same, since the name of a topic holds no colon.
    """
    return f"{settings.group_id}:{settings.input_topic}:{name}"


async def call_producer(timeout_s: float, awaitable: Awaitable[T], doing: str) -> T:
    """Wait for a producer, as `errors.call` does. Raises ExternalError, FencedError also for a later call."""
    try:
        return await call(timeout_s, awaitable, doing)
    except AssertionError as error:
        raise FencedError("the producer had been fenced") from error


async def send_outputs(
    producer: AIOKafkaProducer, outputs: Iterable[tuple[TopicPartition, Output | PackedRecords]]
) -> Ends:
    """Write records to their partitions, in order within each, in as few batches as possible.

    Packed records are a batch of their own. Waits for the response to every batch; returns the offset after the last
    record of each partition. Raises the first error of aiokafka.
    """
    open_batches: dict[TopicPartition, Any] = {}
    sent: list[tuple[TopicPartition, int, Awaitable[Any]]] = []

    async def send(tp: TopicPartition) -> None:
        batch = open_batches.pop(tp)
        response = await producer.send_batch(batch, tp.topic, partition=tp.partition)
        response.add_done_callback(consume_exception)  # if several batches fail, only the first error is raised
        sent.append((tp, batch.record_count(), response))

    for tp, output in outputs:
        if tp in open_batches:
            if _append(open_batches[tp], output):
                continue
            await send(tp)
        if isinstance(output, PackedRecords):
            open_batches[tp] = PackedBatch(producer, output)
            continue
        open_batches[tp] = producer.create_batch()
        if not _append(open_batches[tp], output):
            raise RuntimeError("a record alone fits any batch")  # not AssertionError, which aiokafka raises when fenced
    for tp in list(open_batches):
        await send(tp)
    await asyncio.gather(*(response for _, _, response in sent))
    last = {tp: (count, response) for tp, count, response in sent}
    return {tp: await find_end(count, response) for tp, (count, response) in last.items()}


def pack_outputs(producer: AIOKafkaProducer, outputs: Sequence[Output]) -> Iterable[Output | PackedRecords]:
    """Outputs as a producer's batches hold them, where they can be packed; else as they are."""
    return outputs.pack(records_bytes_max(producer)) if isinstance(outputs, PackableOutputs) else outputs


def _append(batch: Any, output: Output | PackedRecords) -> bool:
    """Add a record to a batch; False if it does not fit. Without a timestamp it gets the time of now.

    Packed records do not fit a batch of others.
    """
    if isinstance(output, PackedRecords):
        return False
    timestamp_ms = output.timestamp_ms
    metadata = batch.append(key=output.key, value=output.value, timestamp=timestamp_ms, headers=list(output.headers))
    return metadata is not None


async def find_end(count: int, response: Awaitable[Any]) -> int:
    """The offset after a batch of `count` records. Raises KafkaError if it failed, or if its offset is not known.

    aiokafka takes the response to a batch that the broker already has for a success at offset -1.
    """
    offset = int((await response).offset)
    if offset < 0:
        raise KafkaError("the broker has written a batch before and does not say where")
    return offset + count
