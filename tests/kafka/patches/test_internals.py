"""What is read from the inside of aiokafka is there, in real clients at the embedded broker."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.protocol.group import HeartbeatRequest

import consumer
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.patches import internals

WAIT_S = 60.0
"""Far from what a busy machine takes."""


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        running.create_topics(["in"])
        yield running


@pytest.fixture
async def member(broker: EmbeddedBroker) -> AsyncIterator[AIOKafkaConsumer]:
    started = AIOKafkaConsumer("in", bootstrap_servers=broker.bootstrap_servers, group_id="g", enable_auto_commit=False)
    async with asyncio.timeout(WAIT_S):
        await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def producer(broker: EmbeddedBroker) -> AsyncIterator[AIOKafkaProducer]:
    started = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id="t")
    async with asyncio.timeout(WAIT_S):
        await started.start()
    yield started
    await started.stop()


def test_only_the_patches_reach_into_aiokafka() -> None:
    """Ruff reports an access to a private attribute (SLF001) wherever the rule is not switched off."""
    package = Path(consumer.__file__).parent
    patches = package / "kafka" / "patches"
    private_import = re.compile(r"^from aiokafka[\w.]* import .*\b_\w", re.MULTILINE)
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if patches not in path.parents:
            assert "SLF001" not in text, path
            assert not private_import.search(text), path


async def test_consumers_and_admin_clients_own_a_client() -> None:
    unstarted = AIOKafkaConsumer()
    assert isinstance(internals.client_of(unstarted), AIOKafkaClient)
    assert isinstance(internals.client_of(AIOKafkaAdminClient()), AIOKafkaClient)
    assert internals.coordinator_of(unstarted) is None
    await unstarted.stop()


async def test_open_connections_are_found(member: AIOKafkaConsumer) -> None:
    client = internals.client_of(member)
    (node,) = internals.find_connected(client)
    for group in (ConnectionGroup.DEFAULT, ConnectionGroup.COORDINATION):
        assert internals.find_connection(client, node, group) is not None
    assert internals.find_connection(client, node + 1, ConnectionGroup.DEFAULT) is None
    assert internals.is_connected(client)


async def test_closed_connections_are_not_found(member: AIOKafkaConsumer) -> None:
    client = internals.client_of(member)
    (node,) = internals.find_connected(client)
    await member.stop()
    assert internals.find_connected(client) == []
    assert internals.find_connection(client, node, ConnectionGroup.DEFAULT) is None
    assert not internals.is_connected(client)


async def test_transports_can_be_aborted(broker: EmbeddedBroker) -> None:
    client = AIOKafkaClient(bootstrap_servers=broker.bootstrap_servers)
    await client.bootstrap()
    assert await client.ready(client.cluster.brokers().pop().nodeId)
    (transport,) = internals.list_transports(client)
    assert not transport.is_closing()
    transport.abort()
    assert transport.is_closing()
    await client.close()
    assert internals.list_transports(client) == []


async def test_marking_restarts_the_clock_of_the_poll_interval() -> None:
    idle = AIOKafkaConsumer()
    idle._subscription._last_fetch_ended -= 1_000.0
    assert idle._subscription.fetcher_idle_time > 900.0
    internals.mark_polled(idle)
    assert idle._subscription.fetcher_idle_time < 900.0
    await idle.stop()


async def test_coordinator_answers_a_member(member: AIOKafkaConsumer) -> None:
    coordinator = internals.coordinator_of(member)
    async with asyncio.timeout(WAIT_S):
        while not member.assignment():
            await asyncio.sleep(0.05)
        await coordinator.ensure_coordinator_known()
        request = HeartbeatRequest("g", coordinator.generation, coordinator.member_id)
        assert (await internals.send_to_coordinator(coordinator, request)).error_code == 0
    coordinator.check_errors()


async def test_member_that_was_stopped_has_ended(member: AIOKafkaConsumer) -> None:
    coordinator = internals.coordinator_of(member)
    assert not internals.has_ended(coordinator)
    await member.stop()
    assert internals.has_ended(coordinator)


async def test_transactional_producer_has_an_identity(producer: AIOKafkaProducer) -> None:
    identity = internals.identify_producer(producer)
    assert identity.transactional_id == "t"
    assert (identity.producer_id >= 0, identity.epoch >= 0) == (True, True)


async def test_error_that_broke_a_transaction_is_found(producer: AIOKafkaProducer) -> None:
    """The fact that forces it: a call after the error fails for another reason."""
    error = KafkaError("cause")
    await producer.begin_transaction()
    assert internals.find_transaction_error(producer) is None
    producer._txn_manager.error_transaction(error)
    with pytest.raises(IllegalOperation):
        await producer.send_offsets_to_transaction({TopicPartition("in", 0): 1}, "g")
    assert internals.find_transaction_error(producer) is error
