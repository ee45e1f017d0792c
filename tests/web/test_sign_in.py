"""Signing in to the live page over real HTTP: sessions, cookies, wrong tokens, and forms of other sites."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from consumer.web import attempts, sessions
from consumer.web.authenticator import COOKIE
from tests.web.test_query_port import MARK, TOKEN, Site, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_only_a_session_that_was_begun_counts_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not derive from the token: two are never the same, and another process knows none of them."""
    async with serving() as site:
        first, second = [await log_in(site) for _ in range(2)]
        assert first != second
        assert await asks_as(site, first) == await asks_as(site, second) == 200
        for forged in ("", ".", first[:-1], first + "x", first.swapcase(), "\xff"):
            assert await asks_as(site, forged) == 401
        await site.ask("/logout", "POST", Cookie=f"{COOKIE}={first}")
        assert await asks_as(site, first) == 401
        assert await asks_as(site, second) == 200
        monkeypatch.setattr(sessions, "SESSION_S", 0)
        assert await asks_as(site, await log_in(site)) == 401
    async with serving() as site:
        assert await asks_as(site, second) == 401


async def asks_as(site: Site, session: str) -> int:
    return (await site.ask(f"/api/v1/conversations/{MARK}", Cookie=f"{COOKIE}={session}"))[0]


async def log_in(site: Site, **headers: str) -> str:
    """The session of a person who has the token."""
    answer = await send_form(site, TOKEN, **headers)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    return answer.cookies[COOKIE].value


async def send_form(site: Site, token: str, **headers: str) -> aiohttp.ClientResponse:
    url = f"http://127.0.0.1:{site.port}/login"
    answer = await site.client.post(url, data={"token": token}, allow_redirects=False, headers=headers)
    site.client.cookie_jar.clear()
    return answer


async def test_a_page_is_not_followed_after_its_session() -> None:
    async with serving() as site:
        session = await log_in(site)
        headers = {"Cookie": f"{COOKIE}={session}"}
        async with site.client.get(f"http://127.0.0.1:{site.port}/events", headers=headers) as stream:
            assert (await stream.content.readuntil(b"\n\n")).startswith(b"data: ")
            await site.ask("/logout", "POST", Cookie=f"{COOKIE}={session}")
            async with asyncio.timeout(60):
                await stream.content.read()


@pytest.mark.parametrize(
    ("host", "secure"),
    [
        ("localhost:8081", False),
        ("127.0.0.1", False),
        ("[::1]:1", False),
        ("conversations.example", True),
        ("10.0.0.1", True),
    ],
)
async def test_beyond_loopback_the_cookie_is_for_https_only(host: str, secure: bool) -> None:  # noqa: FBT001 - a parameter
    async with serving() as site:
        answer = await send_form(site, TOKEN, Host=host)
        cookie = answer.headers["Set-Cookie"]
        assert ("Secure" in cookie) == secure
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie


async def test_wrong_tokens_are_counted_logged_and_slowed_down(log: Callable[[], list[Any]]) -> None:
    """By the address: the one that guesses gets no answer to the right token either, another one does."""
    async with serving() as site:
        for _ in range(attempts.FREE):
            assert (await send_form(site, "guess")).status == 401
        for token in ("guess", TOKEN):
            answer = await send_form(site, token)
            assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
            assert "Set-Cookie" not in answer.headers
        assert site.refused == ["wrong_token"] * attempts.FREE + ["throttled"] * 2
        (line,) = log()
        assert (line["event"], line["level"], line["peer"], line["way"]) == (
            "query.sign_in_failed", "warning", "127.0.0.1", "form",
        )  # fmt: skip
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))) as other:
            url = f"http://127.0.0.1:{site.port}/login"
            async with other.post(url, data={"token": TOKEN}, allow_redirects=False) as answer:
                assert answer.status == 303


async def test_guesses_lock_out_no_peer_that_has_given_the_token() -> None:
    """Neither by the other way, nor by the same, nor with a session."""
    async with serving() as site:
        session = await log_in(site)
        for _ in range(2 * attempts.FREE):
            await send_form(site, "guess")
            await site.ask(f"/conversations/{MARK}", Authorization="Bearer guess")
        assert await asks_as(site, session) == 200
        assert (await send_form(site, TOKEN)).status == 303
        assert (await site.ask(f"/conversations/{MARK}", Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await site.ask(f"/conversations/{MARK}", Authorization="Bearer guess"))[0] == 429


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"token=x"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nhalf"),
        ("application/x-www-form-urlencoded", b"token=\xff\xfe"),
        ("application/x-www-form-urlencoded; charset=unheard-of", b"token=x"),
        ("application/x-www-form-urlencoded; charset=unicode_escape", b"token=\\ud800"),
    ],
)
async def test_an_invalid_form_is_neither_a_login_nor_an_error(kind: str, body: bytes) -> None:
    async with serving() as site:
        url = f"http://127.0.0.1:{site.port}/login"
        async with site.client.post(url, data=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://page.example"}, False),
        ({"Origin": "http://page.example"}, True),
        ({"Origin": "https://PAGE.example"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://page.example:81"}, False),
        ({"Origin": "http://page.example.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
    ],
)
@pytest.mark.parametrize("path", ["/login", "/logout"])
async def test_a_form_of_another_site_is_refused(path: str, headers: dict[str, str], accepted: bool) -> None:  # noqa: FBT001 - a parameter
    """Over plain HTTP a browser sends no `Sec-Fetch-Site`."""
    async with serving() as site:
        form = {"token": TOKEN}
        sent = {"Authorization": f"Bearer {TOKEN}", "Host": "page.example"} | headers
        url = f"http://127.0.0.1:{site.port}{path}"
        async with site.client.post(url, data=form, headers=sent, allow_redirects=False) as answer:
            assert answer.status == (303 if accepted else 403)
            assert ("Set-Cookie" in answer.headers) == accepted
        assert site.refused == ([] if accepted else ["cross_site"])
