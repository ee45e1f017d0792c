"""OAUTHBEARER with tokens from a file, which Kubernetes or a sidecar keeps fresh."""

import asyncio
import base64
import datetime as dt
import re

import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError
from msgspec import Struct

from consumer import secret_files

_TOKEN = re.compile(r"[\x21-\x7e]+")  # a control character would end the token and begin another field on the wire
_TOKEN_BYTES_MAX = 65_536


class TokenUnusableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The file holds no token; the message says why, without the content.

    It is a KafkaError, since aiokafka connects again after one.
    """


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Provides the token that the file holds when a connection begins."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def token(self) -> str:
        """The token. Raises TokenUnusableError."""
        return await asyncio.to_thread(read_token, self._path)


def read_token(path: str) -> str:
    """The token in a file, without white space around it. Raises TokenUnusableError."""
    try:
        content = secret_files.read(path, _TOKEN_BYTES_MAX)
    except OSError as error:
        raise TokenUnusableError(secret_files.describe_error(error)) from error
    return check_token(content.decode("ascii", "replace").strip())


def check_token(text: str) -> str:
    """The text, if it can be sent as a token. Raises TokenUnusableError."""
    if not _TOKEN.fullmatch(text):
        raise TokenUnusableError("it holds no token" if text else "it is empty")
    return text


def parse_expiry(token: str) -> dt.datetime | None:
    """When a token expires, by its claim `exp`; None if it has no such claim or is not a JWT."""
    try:
        claims = token.split(".")[1]
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims)
        return None if decoded.exp is None else dt.datetime.fromtimestamp(decoded.exp, dt.UTC)
    except (IndexError, ValueError, OverflowError, OSError, msgspec.MsgspecError):
        return None


class _Claims(Struct):
    exp: float | None = None
