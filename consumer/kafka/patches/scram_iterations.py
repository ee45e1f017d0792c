"""A broker does not choose freely how often SCRAM hashes the password."""
# ruff: noqa: SLF001 - this is the place for it

from typing import Final

from aiokafka.conn import AIOKafkaConnection, ScramAuthenticator
from aiokafka.errors import AuthenticationFailedError

ITERATIONS_MIN: Final = 4_096
"""The least that RFC 7677 allows. The proof of fewer lets an impostor try passwords cheaply."""
ITERATIONS_MAX: Final = 131_072
"""Eight times what Kafka stores at most; a tenth of a second. The greatest number would take half an hour."""


class ScramIterationsError(AuthenticationFailedError):  # type: ignore[misc]  # aiokafka has no types
    """The broker asks for so many iterations that no proof is sent. The argument is their number."""


def install() -> None:
    """Make every connection of this process refuse such a number. May be called again.

    Forced by: aiokafka hashes as often as the response says, before it knows whether that is from the broker.
    """
    AIOKafkaConnection.authenticator_scram = _create_authenticator


class _Authenticator(ScramAuthenticator):  # type: ignore[misc]  # as above
    def create_salted_password(self, salt: bytes, iterations: int) -> None:
        """Hash the password. Raises ScramIterationsError."""
        if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
            raise ScramIterationsError(iterations)
        super().create_salted_password(salt, iterations)


def _create_authenticator(connection: AIOKafkaConnection) -> _Authenticator:
    return _Authenticator(
        loop=connection._loop,
        sasl_plain_password=connection._sasl_plain_password,
        sasl_plain_username=connection._sasl_plain_username,
        sasl_mechanism=connection._sasl_mechanism,
    )
