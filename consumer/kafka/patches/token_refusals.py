"""A refused OAUTHBEARER token is an error."""
# ruff: noqa: SLF001 - this is the place for it

from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator

_ACKNOWLEDGEMENT = b"\x01"


def install() -> None:
    """Make every connection of this process fail when the broker refuses its token. May be called again.

    Forced by: a broker refuses a token in a response without an error code, which aiokafka takes for success; it goes
    on as if it were connected, to a cluster without brokers. RFC 7628 (3.2.3) has the client acknowledge the refusal
    with one byte, and the broker then responds with an error code.
    """
    AIOKafkaConnection.authenticator_oauth = _create_authenticator


class _Authenticator(OAuthAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """What to send after a response and whether to wait for another, None after the last."""
        return (_ACKNOWLEDGEMENT, True) if payload else await super().step(payload)


def _create_authenticator(connection: AIOKafkaConnection) -> _Authenticator:
    return _Authenticator(sasl_oauth_token_provider=connection._sasl_oauth_token_provider)
