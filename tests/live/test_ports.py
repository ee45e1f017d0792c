"""What speaks to a real Kafka keeps the contract of the ports: one group member, and a partition for each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import RequestTimedOutError
from aiokafka.structs import TopicPartition

from consumer.engine.choice import EngineName, choose_records
from consumer.kafka import group_consumer
from consumer.kafka.group_consumer import GroupConsumer, Listener
from consumer.kafka.log_ends import KafkaLogEnds
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.publisher import TransactionalPublisher
from consumer.kafka.state_log import KafkaStateLog
from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import OutputName, Settings
from consumer.worker.ports import Publisher
from tests.engines import engine_class
from tests.port_contract import WAIT_S, Message, PortContract, Ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = 24
"""More than there are tests."""


class KafkaPorts:
    """Implements `port_contract.Ports`; `take_partition` goes on to one that holds nothing."""

    def __init__(self, settings: Settings, engine: EngineName) -> None:
        self.partition = 0
        self.input_consumer = GroupConsumer(settings, choose_records(engine))
        self.state_log = KafkaStateLog(settings)
        self.log_ends = KafkaLogEnds(settings)
        self._settings = settings
        self._partitions = count()

    def take_partition(self) -> None:
        self.partition = next(self._partitions)
        assert self.partition < PARTITIONS

    def new_publisher(self) -> Publisher:
        return TransactionalPublisher(self._settings, self.partition)

    async def write(self, *messages: Message) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self._settings.bootstrap_servers) as producer:
            await self._send(producer, messages)

    @asynccontextmanager
    async def write_uncommitted(self, *messages: Message) -> AsyncIterator[None]:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap_servers, transactional_id=f"{self._settings.group_id}-other"
        )
        async with producer:
            await producer.begin_transaction()
            await self._send(producer, messages)
            yield
            await producer.abort_transaction()

    async def _send(self, producer: AIOKafkaProducer, messages: tuple[Message, ...]) -> None:
        for message in messages:
            await producer.send_and_wait(
                self._settings.input_topic,
                message.value,
                key=message.key,
                headers=list(message.headers),
                partition=self.partition,
            )

    async def delete_before(self, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.bootstrap_servers)
        await admin.start()
        try:
            tp = TopicPartition(self._settings.input_topic, self.partition)
            await admin.delete_records({tp: RecordsToDelete(offset)})
        finally:
            await admin.close()

    def fail_before_end(self, publisher: Publisher) -> None:
        assert isinstance(publisher, TransactionalPublisher)

        async def fail() -> None:
            raise RequestTimedOutError

        publisher._producer.commit_transaction = fail

    async def read(self, output: OutputName) -> list[Message]:
        topic = self._settings.outputs[output]
        async with PartitionReader(self._settings) as reader:
            starts, ends = await reader.bounds(topic, [self.partition])
            return [
                Message(record.key, record.value, record.headers)
                async for records in reader.read(topic, starts, ends)
                for record in records
            ]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["python", "native"])
async def shared_ports(kafka: str, request: pytest.FixtureRequest) -> AsyncIterator[KafkaPorts]:
    engine_class(request.param)
    name = f"ports-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        bootstrap_servers=kafka,
        input_topic=f"{name}-updates",
        state_topic=f"{name}-state",
        transitions_topic=f"{name}-transitions",
        dead_letters_topic=f"{name}-dead-letters",
        group_id=name,
    )
    async with TopicAdmin(settings) as admin:
        await admin.create(PARTITIONS, 1)
    ports = KafkaPorts(settings, request.param)
    assigned = asyncio.Event()

    async def ignore_revocation(_: object) -> None:
        pass

    try:
        await ports.input_consumer.start(Listener(lambda _: assigned.set(), ignore_revocation))
        async with asyncio.timeout(WAIT_S):
            await assigned.wait()
        yield ports
    finally:
        await ports.log_ends.stop()
        await ports.input_consumer.stop()


@pytest.fixture
def ports(shared_ports: KafkaPorts, monkeypatch: pytest.MonkeyPatch) -> Ports:
    monkeypatch.setattr(group_consumer, "_STALE_S", 0.2)  # of waiting for an offset that is past the end
    monkeypatch.setattr(group_consumer, "_STALE_POLL_S", 0.05)
    shared_ports.take_partition()
    return shared_ports


class TestKafka(PortContract):
    """The tests of the contract."""
