"""Why the writer could not connect, told as the service tells it."""

import socket
from typing import Any

import pytest

from consumer.adapters.kafka.topics import TopicAdmin
from consumer.adapters.kafka.writer import KafkaWriter
from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings
from tests.adapters.kafka.refusing_broker import refusing_broker

SECRET = "hunter2-marked"
Client = type[KafkaWriter] | type[TopicAdmin]
CLIENTS = pytest.mark.parametrize("client", [KafkaWriter, TopicAdmin], ids=["writer", "admin"])


async def told(client: Client, **settings: Any) -> WorldError:
    with pytest.raises(WorldError) as raised:
        async with client(Settings(**settings)):
            pass
    return raised.value


@CLIENTS
async def test_a_wrong_password_is_a_misfit_that_names_the_settings(client: Client) -> None:
    with refusing_broker() as address:
        error = await told(
            client,
            bootstrap_servers=address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="u",
            sasl_password=SECRET,
        )
    assert type(error) is Misfit
    assert str(error).startswith(f"connecting to {address}: the broker refused the credentials: check CC_SECURITY")
    assert SECRET not in str(error)


@CLIENTS
async def test_a_broker_that_is_not_there_is_unreachable(client: Client) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        error = await told(client, bootstrap_servers=address)
    assert type(error) is Unreachable
    assert str(error).startswith(f"connecting to {address}: ConnectionRefusedError: are CC_BOOTSTRAP_SERVERS and")
