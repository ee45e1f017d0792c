"""OAUTHBEARER with tokens that somebody else keeps fresh in a file, such as Kubernetes or a sidecar.

Fact of aiokafka 0.14 that shapes it: a broker refuses a token in an answer without an error code, and aiokafka takes
that for success. It goes on as if it were connected, to a cluster without brokers. RFC 7628 (3.2.3) has the client
answer the refusal with one byte, upon which the broker says it as an error; `heed_refusals` makes aiokafka do so.
"""

import asyncio
import base64
import datetime as dt
import re

import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import KafkaError
from msgspec import Struct

_TOKEN = re.compile(r"[\x21-\x7e]+")  # a control character would end the token, and begin another field, on the wire
_TOKEN_BYTES_MAX = 65_536
_GO_ON = b"\x01"


class TokenUnusableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The file has no token to send. Says why without showing what it has. aiokafka tries again after a KafkaError."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Gives the token that the file has when a connection asks for one."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def token(self) -> str:
        """The token. Raises TokenUnusableError."""
        return await asyncio.to_thread(read_token, self._path)


def read_token(path: str) -> str:
    """The token in a file, without the white space around it. Raises TokenUnusableError."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path cannot be read in part
            content = file.read(_TOKEN_BYTES_MAX + 1)
    except OSError as error:
        raise TokenUnusableError(type(error).__name__) from error
    text = content.decode("ascii", "replace").strip()
    if len(content) > _TOKEN_BYTES_MAX or not _TOKEN.fullmatch(text):
        raise TokenUnusableError("it holds no token" if text else "it is empty")
    return text


def expiry(token: str) -> dt.datetime | None:
    """When a token says that it expires; None if it does not say so, or is no JWT."""
    try:
        claims = token.split(".")[1]
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims)
        return None if decoded.exp is None else dt.datetime.fromtimestamp(decoded.exp, dt.UTC)
    except (IndexError, ValueError, OverflowError, OSError, msgspec.MsgspecError):
        return None


def heed_refusals() -> None:
    """Make every connection of this process notice that its token was refused. May be called again."""
    AIOKafkaConnection.authenticator_oauth = _authenticator


class _Claims(Struct):
    exp: float | None = None


class _HeedingAuthenticator(OAuthAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """What to send after an answer, None if it was the last."""
        return (_GO_ON, True) if payload else await super().step(payload)


def _authenticator(connection: AIOKafkaConnection) -> _HeedingAuthenticator:
    return _HeedingAuthenticator(sasl_oauth_token_provider=connection._sasl_oauth_token_provider)  # noqa: SLF001
