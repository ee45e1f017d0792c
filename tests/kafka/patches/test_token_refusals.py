"""A refused OAUTHBEARER token, at a broker that refuses it as Kafka does."""

import pytest
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, create_conn
from aiokafka.errors import SaslAuthenticationFailed

from consumer.kafka.patches import token_refusals
from tests.kafka.refusing_broker import refusing_broker


class Token(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    async def token(self) -> str:
        return "any"


async def connect(address: str) -> AIOKafkaConnection:
    host, port = address.split(":")
    arguments = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
    return await create_conn(host, int(port), **arguments, sasl_oauth_token_provider=Token())


async def test_refused_token_is_an_error() -> None:
    token_refusals.install()
    with refusing_broker() as address, pytest.raises(SaslAuthenticationFailed):
        await connect(address)


async def test_aiokafka_takes_a_refused_token_for_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact that forces the patch: if this fails, aiokafka may not need it any more."""
    monkeypatch.setattr(
        AIOKafkaConnection,
        "authenticator_oauth",
        lambda connection: OAuthAuthenticator(sasl_oauth_token_provider=connection._sasl_oauth_token_provider),
    )
    with refusing_broker() as address:
        connection = await connect(address)
        assert connection.connected()
        connection.close()
