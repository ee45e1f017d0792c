"""Asks other workers for their parts of an answer, over a bounded number of connections.

1. No request carries the token: it is signed, and so has the answer to be.
2. A redirection is not followed, an answer is not decompressed, and no more than `ANSWER_BYTES_MAX` of it are read.
"""

from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from consumer.query.fleet import NoAnswerError
from consumer.settings import parse_address
from consumer.web.api import PARTS_PATH
from consumer.web.worker_signature import ANSWER_HEADER, WorkerSignature

ANSWER_BYTES_MAX: Final = 2_097_152
"""Four times a page of the largest size with ids as Genesys Cloud gives them."""

_CONNECTIONS_MAX: Final = 32
_CONNECTIONS_TO_ONE_MAX: Final = 2
_CONNECT_S: Final = 2.0
_IDLE_S: Final = 30.0
"""Shorter than workers keep idle connections open."""
_OK: Final = 200
_UNAUTHORIZED: Final = (401, 421, 429)
_NOT_FOUND: Final = 404


class WorkerClient:
    """Implements `query.fleet.Workers`. Connects at the first call."""

    def __init__(self, signature: WorkerSignature) -> None:
        self._signature = signature
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, address: str, path: str, parameters: Mapping[str, str]) -> bytes:
        """See `Workers.ask`."""
        parsed = parse_address(address)
        assert parsed is not None
        host, port = parsed
        url = URL.build(scheme="http", host=host, port=port, path=PARTS_PATH + path, query=dict(parameters))
        signed = self._signature.sign(address, url.raw_path_qs)
        headers = {} if signed is None else {"Authorization": signed[0]}
        try:
            async with self._connect().get(url, headers=headers, allow_redirects=False) as answer:
                body = await _read(answer)
                status = answer.status
                signature = answer.headers.get(ANSWER_HEADER, "")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(f"it cannot be reached: {type(error).__name__}") from error
        if status in _UNAUTHORIZED:
            raise NoAnswerError(
                f"it refuses the question ({status}): its CC_QUERY_TOKEN or CC_QUERY_ADVERTISED differs, or its clock"
            )
        if status == _NOT_FOUND:
            raise NoAnswerError("it is of another version")
        if status != _OK:
            raise NoAnswerError(f"it has no answer at the moment ({status})")
        if signed is not None and not self._signature.is_answer(signed[1], body, signature):
            raise NoAnswerError("its answer is not signed with this worker's CC_QUERY_TOKEN")
        return body

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _connect(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=_CONNECTIONS_MAX, limit_per_host=_CONNECTIONS_TO_ONE_MAX, keepalive_timeout=_IDLE_S
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        return self._session


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            answer.close()
            raise NoAnswerError(f"its answer has more than {ANSWER_BYTES_MAX} bytes: ask for smaller pages (limit)")
    return bytes(body)
