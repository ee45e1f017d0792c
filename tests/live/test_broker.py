"""Brokers start on ports of their own or say why not; the topics that the tests create are as they were asked for."""

import asyncio
import socket

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.live.broker import BrokerError, LocalBroker
from tests.live.commands import WAIT_S
from tests.live.conftest import CreateTopics, UniqueName, needed_jars
from tests.sockets import find_free_ports


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


def test_a_port_is_given_once() -> None:
    ports = [port for _ in range(100) for port in find_free_ports(3)]
    assert len(set(ports)) == len(ports)


def test_a_broker_that_does_not_start_says_why() -> None:
    broker = LocalBroker(needed_jars())
    try:
        taken = ("127.0.0.1", int(broker.bootstrap_servers.rpartition(":")[2]))
        with socket.create_server(taken), pytest.raises(BrokerError, match="Address already in use"):
            broker.start()
    finally:
        broker.close()
