"""The errors of a writer that cannot connect are those of the service."""

import socket
from typing import Any

import pytest

from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import Settings
from consumer.tools.traffic_writer import TrafficWriter
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError
from tests.kafka.refusing_broker import refusing_broker

SECRET = "hunter2-marked"
Client = type[TrafficWriter] | type[TopicAdmin]
CLIENTS = pytest.mark.parametrize("client", [TrafficWriter, TopicAdmin], ids=["writer", "admin"])


async def connection_error(client: Client, **settings: Any) -> ExternalError:
    with pytest.raises(ExternalError) as raised:
        async with client(Settings(**settings)):
            pass
    return raised.value


@CLIENTS
async def test_a_wrong_password_is_a_configuration_error(client: Client) -> None:
    with refusing_broker() as address:
        error = await connection_error(
            client,
            bootstrap_servers=address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="u",
            sasl_password=SECRET,
        )
    assert type(error) is ConfigurationError
    assert str(error).startswith(f"connecting to {address}: the broker refused the credentials: check CC_SECURITY")
    assert SECRET not in str(error)


@CLIENTS
async def test_a_missing_broker_is_a_retriable_error(client: Client) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        error = await connection_error(client, bootstrap_servers=address)
    assert type(error) is RetriableError
    assert str(error).startswith(f"connecting to {address}: ConnectionRefusedError: are CC_BOOTSTRAP_SERVERS and")
