"""OAUTHBEARER with tokens that a provider issues for client credentials (RFC 6749, section 4.4).

1. One task makes all requests, one at a time, for all clients of the process.
2. A token is renewed ahead of its expiry, and stays in use until then, whatever becomes of the requests for another.
3. A request has a bound in time and in size, and follows no redirection.
4. The files of the secret and of the authorities are read for every request.
5. No error and no log line has the secret or a token.
"""

import asyncio
import base64
import functools
import random
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus

import aiohttp
from aiokafka.abc import AbstractTokenProvider

from consumer import secret_files
from consumer.kafka.token_answers import (
    IssuedToken,
    TokenNotIssuedError,
    explain_silence,
    parse_answer,
    wrong_endpoint,
)
from consumer.settings import Settings
from consumer.telemetry import logs

REQUEST_S: Final = 4.0
"""Longest time for a request. `connection.find_connection_error`, which finds out the cause, waits longer."""
ANSWER_BYTES_MAX: Final = 131_072
"""Twice the largest token."""
_SECRET_BYTES_MAX: Final = 4_096
_RETRY_S_MAX: Final = 30.0


def renewal_delay_s(lifetime_s: float, jitter: float) -> float:
    """When to renew a token, in seconds from its issue: after 70 to 80 % of its lifetime. `jitter` is from 0 to 1."""
    return lifetime_s * (0.8 - 0.1 * jitter)


def retry_delay_s(failures: int, jitter: float) -> float:
    """When to ask again after so many failures in a row, in seconds: from 1, twice as long each time, up to 30.

    `jitter`, from 0 to 1, takes up to half of it away.
    """
    return min(2.0 ** min(failures - 1, 10), _RETRY_S_MAX) * (1 - jitter / 2)


class TokenEndpoint(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Provides the token that was issued last, as long as it is valid."""

    def __init__(
        self,
        url: str,
        client_id: str,
        secret_file: str,
        scope: str,
        ca_file: str,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._client_id = client_id
        self._secret_file = secret_file
        self._scope = scope
        self._ca_file = ca_file
        self._monotonic_s = monotonic_s
        self._token = ""
        self._expires_s = float("-inf")
        self._failure = _EXPIRED
        """Why there is no token once the last one has expired."""
        self._idle = asyncio.Event()
        """Set while no request is under way."""
        self._renewing: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """The token, after `REQUEST_S` at most, or at once while no request is due. Raises TokenNotIssuedError."""
        if self._renewing is None or self._renewing.done():  # done: it ended with the event loop of an earlier call
            self._idle = asyncio.Event()
            self._renewing = asyncio.create_task(self._keep_renewed())
        if not self._is_valid():
            await self._idle.wait()
        if not self._is_valid():
            raise self._failure.with_traceback(None)  # raised again and again, it would keep the frames of each time
        return self._token

    def _is_valid(self) -> bool:
        return self._monotonic_s() < self._expires_s

    async def _keep_renewed(self) -> None:
        """Renew the token as long as the event loop runs."""
        failures = 0
        while True:
            self._idle.clear()
            began_s = self._monotonic_s()
            try:
                issued = await self._fetch()
            except TokenNotIssuedError as error:
                if error.args != self._failure.args:
                    logs.logger().warning("oauth.renewal_failed", error=error.args[0])
                failures += 1
                self._failure = error
                delay_s = retry_delay_s(failures, random.random())  # noqa: S311 - no secret
            else:
                if failures:
                    logs.logger().info("oauth.token_renewed", failures=failures)
                failures = 0
                self._token, self._expires_s, self._failure = issued.text, began_s + issued.lifetime_s, _EXPIRED
                delay_s = renewal_delay_s(issued.lifetime_s, random.random())  # noqa: S311 - no secret
            finally:
                self._idle.set()
            await asyncio.sleep(delay_s)

    async def _fetch(self) -> IssuedToken:
        """Ask for a token. Raises TokenNotIssuedError."""
        try:
            async with asyncio.timeout(REQUEST_S):
                authorization, context = await asyncio.to_thread(self._read_files)
                return parse_answer(*await self._post(authorization, context))
        except (aiohttp.ClientError, OSError) as error:
            raise explain_silence(error) from None  # it may hold the headers of the request

    def _read_files(self) -> tuple[str, ssl.SSLContext]:
        """The header that authenticates the client (RFC 6749, section 2.3.1), and the authorities to trust."""
        secret = _read_secret(self._secret_file)
        try:
            if self._ca_file:
                secret_files.check(self._ca_file)
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise _unusable_file("CC_SASL_OAUTH_CA_FILE", self._ca_file, error) from error
        credentials = f"{quote_plus(self._client_id)}:{quote_plus(secret)}"
        return f"Basic {base64.b64encode(credentials.encode()).decode()}", context

    async def _post(self, authorization: str, context: ssl.SSLContext) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises ClientError, OSError and TokenNotIssuedError."""
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        headers = {"Authorization": authorization, "Accept": "application/json", "Accept-Encoding": "identity"}
        connector, jar = aiohttp.TCPConnector(ssl=context), aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False) as session,
            session.post(self._url, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    answer.close()
                    raise wrong_endpoint(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
            return answer.status, bytes(body)


def _read_secret(path: str) -> str:
    try:
        secret = secret_files.read(path, _SECRET_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable_file("CC_SASL_OAUTH_CLIENT_SECRET_FILE", path, error) from None  # it may hold the secret
    if not secret:
        raise TokenNotIssuedError("the file of CC_SASL_OAUTH_CLIENT_SECRET_FILE is empty", is_transient=False)
    return secret


def _unusable_file(variable: str, path: str, error: Exception) -> TokenNotIssuedError:
    named, reason = secret_files.name_file(path), secret_files.describe_error(error)
    return TokenNotIssuedError(f"{variable}: cannot use {named}: {reason}", is_transient=False)


_EXPIRED: Final = TokenNotIssuedError("the token has expired and the next one is late", is_transient=True)


def share_endpoint(settings: Settings) -> TokenEndpoint:
    """The provider of tokens that all clients with these settings share."""
    return _share(
        settings.sasl_oauth_token_endpoint,
        settings.sasl_oauth_client_id,
        settings.sasl_oauth_client_secret_file,
        settings.sasl_oauth_scope,
        settings.sasl_oauth_ca_file,
    )


@functools.lru_cache(maxsize=4)  # the service needs one, tests more
def _share(url: str, client_id: str, secret_file: str, scope: str, ca_file: str) -> TokenEndpoint:
    return TokenEndpoint(url, client_id, secret_file, scope, ca_file)
