"""The versions of brokers: which are too old, and which lose markers of transactions."""

import asyncio

import pytest
from aiokafka.client import AIOKafkaClient

from consumer.kafka.embedded import EmbeddedBroker
from consumer.preflight import broker_versions
from consumer.preflight.broker_versions import NEEDED, BrokerFound
from consumer.preflight.check_result import CheckStatus


@pytest.mark.parametrize(
    ("levels", "status", "message"),
    [
        ({1: 29}, "pass", "broker 1: Kafka 4.2 (metadata.version 29)"),
        ({1: 30}, "warn", "broker 1: Kafka 4.3 (metadata.version 30): "),
        ({1: 31}, "warn", "broker 1: later than Kafka 4.3 (metadata.version 31): "),
        ({1: 7}, "pass", "broker 1: Kafka 3.9 or earlier (metadata.version 7)"),
        ({1: 26}, "pass", "broker 1: Kafka 4.1 (metadata.version 26)"),
        ({3: 29, 1: 29, 2: 29}, "pass", "brokers 1, 2, 3: Kafka 4.2 (metadata.version 29)"),
        (
            {1: 30, 2: 29, 3: None},
            "warn",
            (
                "broker 2: Kafka 4.2 (metadata.version 29); broker 1: Kafka 4.3 (metadata.version 30); "
                "broker 3: version not known: too old to report it, or no answer: "
            ),
        ),
        (dict.fromkeys(range(7), 29), "pass", "brokers 0, 1, 2, 3, 4 and 2 more: Kafka 4.2 (metadata.version 29)"),
        ({1: None}, "pass", "broker 1: version not known: too old to report it, or no answer"),
        ({}, "pass", "no broker is known"),
    ],
)
def test_one_broker_from_4_3_on_is_a_warning(levels: dict[int, int | None], status: CheckStatus, message: str) -> None:
    """A broker of unknown version is none; a version that is newer than all known ones is affected."""
    result = broker_versions.check({node: BrokerFound(level) for node, level in levels.items()})
    assert result.status == status
    assert result.message.startswith(message)
    assert ("KAFKA-20734" in result.message) == (status == "warn")
    assert ("Kafka 4.2" in result.remedy) == (status == "warn")
    if status == "pass":
        assert result.message == message


def test_one_broker_without_a_needed_request_is_a_failure() -> None:
    """Whatever the others do, and the requests in the order of a transaction."""
    found = {1: BrokerFound(30), 2: BrokerFound(None, ("DescribeProducers",)), 3: BrokerFound(7, ("EndTxn",))}
    result = broker_versions.check(found)
    assert (result.status, result.is_transient) == ("fail", False)
    assert result.message == "brokers 2, 3: no EndTxn, DescribeProducers, which CC_DELIVERY=exactly_once takes"
    assert "2.8 or later" in result.remedy


async def test_broker_that_is_too_old_to_say_takes_none() -> None:
    """librdkafka's mock speaks ApiVersions as brokers before 2.4 do."""
    with EmbeddedBroker() as broker:
        client = AIOKafkaClient(bootstrap_servers=broker.bootstrap_servers)
        await client.bootstrap()
        try:
            async with asyncio.timeout(10):
                assert list((await broker_versions.find(client, 5.0)).values()) == [BrokerFound(None, tuple(NEEDED))]
        finally:
            await client.close()
