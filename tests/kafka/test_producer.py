"""How records are written in batches, and where they end."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import DuplicateSequenceNumber, KafkaError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceResponse_v2
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition

from consumer.engine.output import Output, PackedRecords
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.producer import call_producer, create_producer, find_end, send_outputs
from consumer.settings import Settings
from consumer.worker.ports import FencedError


def response_of(offset: int) -> Any:
    response = asyncio.get_running_loop().create_future()
    response.set_result(RecordMetadata("t", 0, TopicPartition("t", 0), offset, 0, 0, 0))
    return response


async def test_batch_ends_after_its_last_record() -> None:
    """The broker reports the offset of the first."""
    assert await find_end(3, response_of(7)) == 10
    assert await find_end(1, response_of(0)) == 1


async def test_unknown_offset_is_an_error() -> None:
    """aiokafka reports -1 where the broker has the batch already; an end computed from it would be wrong for ever."""
    with pytest.raises(KafkaError, match="does not say where"):
        await find_end(3, response_of(-1))


async def test_outputs_keep_their_order_in_each_partition() -> None:
    """Also where they alternate between partitions and fill several batches; the ends are those of the last ones."""
    with EmbeddedBroker() as broker:
        broker.create_topics(["a", "b"])
        settings = Settings(bootstrap_servers=broker.bootstrap_servers, batch_bytes_max=2_000, state_bytes_max=1_000)
        partitions = [TopicPartition("a", 0), TopicPartition("b", 0)]
        outputs = [Output(b"k%d" % number, b"x" * 600, timestamp_ms=1_000 + number) for number in range(21)]
        producer = create_producer(settings)
        await producer.start()
        try:
            ends = await send_outputs(producer, [(tp, output) for output in outputs for tp in partitions])
        finally:
            await producer.stop()
        assert ends == dict.fromkeys(partitions, 21)
        async with PartitionReader(settings) as reader:
            for tp in partitions:
                slices = [records async for records in reader.read(tp.topic, {0: 0}, {0: 21})]
                records = [record for records in slices for record in records]
                assert [(record.key, record.timestamp_ms) for record in records] == [
                    (output.key, output.timestamp_ms) for output in outputs
                ]


async def test_packed_records_keep_their_place_among_others() -> None:
    """The broker takes them, and a reader finds every record in order, with the time of its batch."""
    with EmbeddedBroker() as broker:
        broker.create_topics(["a"])
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
        tp = TopicPartition("a", 0)
        parts: list[Output | PackedRecords] = [pack(0, 3), Output(b"k3", b"v"), pack(4, 1), pack(5, 2)]
        parts += [Output(b"k7", b"v"), Output(b"k8", b"v")]
        began_ms = int(time.time() * 1_000)
        producer = create_producer(settings)
        await producer.start()
        try:
            assert await send_outputs(producer, [(tp, part) for part in parts]) == {tp: 9}
        finally:
            await producer.stop()
        async with PartitionReader(settings) as reader:
            slices = [records async for records in reader.read("a", {0: 0}, {0: 9})]
        records = [record for records in slices for record in records]
        assert [(record.key, record.value) for record in records] == [(b"k%d" % number, b"v") for number in range(9)]
        assert all(began_ms <= record.timestamp_ms <= time.time() * 1_000 for record in records)


def pack(first: int, count: int) -> PackedRecords:
    """Records as an engine packs them, from aiokafka's builder."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
    for number in range(count):
        builder.append(number, 0, b"k%d" % (first + number), b"v", [])
    return PackedRecords(count, bytes(builder.build()[61:]))


async def test_assertion_of_aiokafka_means_fenced() -> None:
    async def fail() -> None:
        raise AssertionError

    with pytest.raises(FencedError):
        await call_producer(60, fail(), "committing")


class Batch:
    """A batch that was sent, with the offsets that the producer reports to it."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def done(self, base_offset: int, timestamp: int, log_start_offset: int | None = None) -> None:
        del timestamp, log_start_offset
        self.offsets.append(base_offset)


def test_aiokafka_takes_a_duplicate_for_a_success() -> None:
    """The fact that forces `find_end`: if this fails, aiokafka may not need it any more."""
    batch = Batch()
    sender = SimpleNamespace(client=None, _txn_manager=None, _retry_backoff=0.1)
    handler = SendProduceReqHandler(sender, {TopicPartition("t", 0): batch})
    handler.handle_response(ProduceResponse_v2([("t", [(0, DuplicateSequenceNumber.errno, -1, -1)])], 0))
    assert batch.offsets == [-1]
