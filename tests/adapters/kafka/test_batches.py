"""What the answer to a batch says of where its records are."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import DuplicateSequenceNumber, KafkaError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceResponse_v2
from aiokafka.structs import RecordMetadata, TopicPartition

from consumer.adapters.kafka.batches import end_of


def answered(offset: int) -> Any:
    answer = asyncio.get_running_loop().create_future()
    answer.set_result(RecordMetadata("t", 0, TopicPartition("t", 0), offset, 0, 0, 0))
    return answer


async def test_a_batch_ends_after_its_last_record() -> None:
    """The broker tells the offset of the first."""
    assert await end_of(3, answered(7)) == 10
    assert await end_of(1, answered(0)) == 1


async def test_an_offset_that_is_not_told_is_an_error() -> None:
    """aiokafka answers -1 where the broker had the batch already; an end made of that would be wrong for ever."""
    with pytest.raises(KafkaError, match="does not say where"):
        await end_of(3, answered(-1))


class Batch:
    """One that is sent: what the producer tells it."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def done(self, base_offset: int, timestamp: int, log_start_offset: int | None = None) -> None:
        del timestamp, log_start_offset
        self.offsets.append(base_offset)


def test_aiokafka_takes_a_duplicate_for_a_success() -> None:
    """The fact that `end_of` is there for: a change of aiokafka is noticed here."""
    batch = Batch()
    sender = SimpleNamespace(client=None, _txn_manager=None, _retry_backoff=0.1)
    handler = SendProduceReqHandler(sender, {TopicPartition("t", 0): batch})
    handler.handle_response(ProduceResponse_v2([("t", [(0, DuplicateSequenceNumber.errno, -1, -1)])], 0))
    assert batch.offsets == [-1]
