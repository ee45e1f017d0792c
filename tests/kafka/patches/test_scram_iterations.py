"""How often a broker may have the password hashed, at a broker that asks for any number."""

import pytest
from aiokafka.conn import AIOKafkaConnection, ScramAuthenticator, create_conn
from aiokafka.errors import SaslAuthenticationFailed

from consumer.kafka.connection import find_connection_error
from consumer.kafka.patches import scram_iterations
from consumer.kafka.patches.scram_iterations import ITERATIONS_MAX, ITERATIONS_MIN, ScramIterationsError
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError
from tests.kafka.refusing_broker import refusing_broker

PASSWORD = "hunter2-marked"
MECHANISMS = pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])


async def connect(address: str, mechanism: str) -> AIOKafkaConnection:
    host, port = address.split(":")
    arguments = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism}
    return await create_conn(host, int(port), **arguments, sasl_plain_username="u", sasl_plain_password=PASSWORD)


@MECHANISMS
@pytest.mark.parametrize("iterations", [-1, 0, 1, ITERATIONS_MIN - 1, ITERATIONS_MAX + 1, 2**31 - 1, 10**30])
async def test_no_proof_is_sent_for_such_a_number(iterations: int, mechanism: str) -> None:
    scram_iterations.install()
    with refusing_broker(iterations) as address, pytest.raises(ScramIterationsError, match=f"{iterations}$"):
        await connect(address, mechanism)


@MECHANISMS
@pytest.mark.parametrize("iterations", [ITERATIONS_MIN, ITERATIONS_MAX])
async def test_broker_decides_about_a_proof_of_any_other(iterations: int, mechanism: str) -> None:
    scram_iterations.install()
    with refusing_broker(iterations) as address, pytest.raises(SaslAuthenticationFailed):
        await connect(address, mechanism)


async def test_reason_names_the_number_and_what_to_do() -> None:
    with refusing_broker(1) as address:
        error = await find_connection_error(
            Settings(
                bootstrap_servers=address, security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password=PASSWORD
            )
        )
    assert type(error) is ConfigurationError
    assert "the broker asks for 1 iterations of SCRAM, not 4096 to 131072: check that CC_BOOTSTRAP" in str(error)
    assert PASSWORD not in str(error)


async def test_aiokafka_sends_the_proof_of_one_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact that forces the patch: if this fails, aiokafka may not need it any more."""
    monkeypatch.setattr(
        AIOKafkaConnection,
        "authenticator_scram",
        lambda connection: ScramAuthenticator(
            loop=connection._loop,
            sasl_plain_password=connection._sasl_plain_password,
            sasl_plain_username=connection._sasl_plain_username,
            sasl_mechanism=connection._sasl_mechanism,
        ),
    )
    with refusing_broker(1) as address, pytest.raises(SaslAuthenticationFailed):
        await connect(address, "SCRAM-SHA-512")
