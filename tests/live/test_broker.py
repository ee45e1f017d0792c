"""The real broker of the tests is real: records come back, and a transaction shows only when committed."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.live.commands import WAIT_S
from tests.live.conftest import CreateTopics, UniqueName

pytestmark = pytest.mark.kafka


async def test_a_record_comes_back(kafka: str, unique_name: UniqueName, create_topics: CreateTopics) -> None:
    topic = unique_name("round-trip")
    await create_topics(kafka, {topic: (2, {})})
    async with asyncio.timeout(WAIT_S), AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topic, b"value", key=b"key", partition=1)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    async with asyncio.timeout(WAIT_S), consumer:
        record = await consumer.getone()
    assert (record.topic, record.partition, record.offset, record.key, record.value) == (topic, 1, 0, b"key", b"value")


async def test_a_transaction_shows_only_when_committed(
    kafka: str, unique_name: UniqueName, create_topics: CreateTopics
) -> None:
    topic = unique_name("transaction")
    await create_topics(kafka, {topic: (1, {})})
    partition = TopicPartition(topic, 0)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=unique_name("producer"))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    consumer.assign([partition])
    async with asyncio.timeout(WAIT_S), producer, consumer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"committed", partition=0)
        assert await consumer.getmany(timeout_ms=1_000) == {}
        await producer.commit_transaction()
        record = await consumer.getone()
    assert record.value == b"committed"


async def test_a_topic_is_as_it_was_asked_for(kafka: str, unique_name: UniqueName, create_topics: CreateTopics) -> None:
    topic = unique_name("settings")
    await create_topics(kafka, {topic: (3, {"cleanup.policy": "compact"})})
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    async with asyncio.timeout(WAIT_S):
        try:
            await client.start()
            (described,) = await client.describe_topics([topic])
            (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        finally:
            await client.close()
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert (len(described["partitions"]), settings["cleanup.policy"]) == (3, "compact")


async def test_a_topic_that_exists_is_not_made_again(
    kafka: str, unique_name: UniqueName, create_topics: CreateTopics
) -> None:
    topic = unique_name("twice")
    await create_topics(kafka, {topic: (1, {})})
    with pytest.raises(AssertionError, match="were not made"):
        await create_topics(kafka, {topic: (1, {})})
