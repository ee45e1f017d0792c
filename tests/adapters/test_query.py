"""The query port over real HTTP: who gets an answer, and what it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import aiohttp
import pytest

from consumer.adapters.query import QueryServer

METHODS = ("GET", "HEAD", "POST", "DELETE")
TOKEN = "0123456789abcdef-token"
STATE = b'{"schema":1,"conversationId":"mark-of-a-conversation"}'
STATES = {"mark-of-a-conversation": STATE}
PATH = "/api/v1/conversations/mark-of-a-conversation"


class Site:
    """A query port and a client."""

    def __init__(self, token: str) -> None:
        self.refused: list[str] = []
        self.server = QueryServer(STATES.get, token, self.refused.append)
        self.client: aiohttp.ClientSession
        self.port = 0

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, aiohttp.ClientResponse, bytes]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.client.request(method, url, headers=headers) as answer:
            return answer.status, answer, await answer.read()


@asynccontextmanager
async def serving(token: str = TOKEN) -> AsyncIterator[Site]:
    site = Site(token)
    site.port = await site.server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as site.client:
            yield site
    finally:
        await site.server.stop()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer " + TOKEN[:-1],
        "Bearer " + TOKEN + "x",
        "Bearer " + TOKEN.upper(),
        "Bearer \xff\xfe",
        TOKEN,
        "Basic " + TOKEN,
        f"Bearer {TOKEN} {TOKEN}",
    ],
)
async def test_without_the_token_there_is_no_data_and_all_paths_are_the_same(authorization: str | None) -> None:
    asked = [*product(METHODS, (PATH, "/", "/api/v1/conversations/none", "/no/such/path", PATH + "?token=" + TOKEN))]
    async with serving() as site:
        for method, path in asked:
            headers = {} if authorization is None else {"Authorization": authorization}
            status, answer, body = await site.ask(path, method, **headers)
            assert status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
            assert answer.headers["Cache-Control"] == "no-store"
            told = b'{"title": "a bearer token is needed: CC_QUERY_TOKEN", "status": 401}'
            assert body == (b"" if method == "HEAD" else told)
        assert site.refused == ["unauthorized"] * len(asked)


async def test_two_authorizations_are_none() -> None:
    async with serving() as site:
        headers: Any = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
        async with site.client.get(f"http://127.0.0.1:{site.port}{PATH}", headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_with_the_token_a_state_comes_byte_for_byte(scheme: str) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(PATH, Authorization=f"{scheme} {TOKEN}", Host="any.example")
        assert (status, body) == (200, STATE)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        assert site.refused == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/conversations/none", 404),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("POST", PATH, 405),
        ("DELETE", PATH, 405),
    ],
)
async def test_what_there_is_not_is_told_as_a_problem(method: str, path: str, expected: int) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(path, method, Authorization=f"Bearer {TOKEN}")
        assert status == expected
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert b'"status": %d' % expected in body
        assert answer.headers.get("Allow") == ("GET,HEAD" if expected == 405 else None)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.9.9.9:80", "[::1]:8081"])
async def test_without_a_token_set_a_request_to_loopback_is_answered(host: str) -> None:
    async with serving("") as site:
        assert (await site.ask(PATH, Host=host))[0::2] == (200, STATE)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[", ":"]
)
async def test_without_a_token_set_a_page_that_points_its_name_here_gets_nothing(host: str) -> None:
    async with serving("") as site:
        status, _, body = await site.ask(PATH, Host=host)
        assert status == 421
        assert b"mark-of" not in body
        assert site.refused == ["misdirected"]
