"""Producing in batches, by aiokafka: what the lanes and the repair tools share.

Facts of aiokafka 0.14 that shape it: `commit_transaction()` succeeds although a batch failed, so the answer to every
batch is awaited before offsets go in; and an error that breaks a transaction makes other calls fail for reasons of
their own, so the first is looked up.
"""

from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumer.adapters.kafka.bounds import see
from consumer.adapters.kafka.connection import connection_arguments
from consumer.adapters.kafka.unanswered import send_once
from consumer.runtime.settings import Settings


def producer(settings: Settings, **more: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas in sync. Raises Misfit as `connection_arguments` does."""
    made = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=settings.batch_bytes_max,
        **more,
        **connection_arguments(settings),
    )
    send_once(made)
    return made


def transactional_id(settings: Settings, name: str) -> str:
    """The one of a lane (its partition) or of a tool. No other service has it: a topic's name holds no colon."""
    return f"{settings.group_id}:{settings.input_topic}:{name}"


def append(
    batch: Any,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    timestamp_ms: int | None = None,
) -> bool:
    """Add a record; False if the batch is full. Into an empty one any record fits, however large it is.

    Without `timestamp_ms` the producer says when.
    """
    added = batch.append(key=key, value=value, timestamp=timestamp_ms, headers=list(headers))
    if added is None and not batch.record_count():
        raise RuntimeError("a record alone fits any batch")  # not AssertionError, which aiokafka raises when fenced
    return added is not None


async def send(producer: AIOKafkaProducer, batch: Any, topic: str, partition: int) -> Awaitable[Any]:
    """The answer of the broker to a batch, to be awaited. Of several failures only one is told, the others are seen."""
    answer = await producer.send_batch(batch, topic, partition=partition)
    answer.add_done_callback(see)
    return answer  # type: ignore[no-any-return]


async def end_of(count: int, answer: Awaitable[Any]) -> int:
    """The offset after a batch of so many records. Raises KafkaError if the broker does not say where it is.

    aiokafka takes the answer to a batch that was there already for a success, at offset -1.
    """
    offset = int((await answer).offset)
    if offset < 0:
        raise KafkaError("the broker has written a batch before and does not say where")
    return offset + count


def broken_by(producer: AIOKafkaProducer) -> BaseException | None:
    """What ended the transaction, None if nothing did. Whatever was tried after it failed for another reason."""
    ending = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - nothing public tells it
    return ending.exception() if ending.done() and not ending.cancelled() else None
