"""Both ports while one kind of attacker does its worst, from the very address of those who have to be answered.

The attackers are a process of their own. No time is asserted, which depends on what else the machine does: everybody
has to be answered, each over a new connection, as the kubelet makes one. `-s` prints how long the answers took.
"""

import asyncio
import time
from statistics import median

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from consumer.web.admin_port import AdminServer
from consumer.web.bounded_http import Bounds
from tests.web.attackers import attacking
from tests.web.test_query_port import TOKEN, Site, serving

pytestmark = pytest.mark.slow

PROBES = 20
CLIENTS = Bounds().connections_max
REQUESTS = 8
CROWD = 4 * CLIENTS
WITHIN_S = 240.0
"""Ends a test that would never end."""


async def ask(url: str, **headers: str) -> tuple[int | None, float]:
    """The status of one request over a new connection, None without an answer, and how long it took."""
    began_s = time.monotonic()
    try:
        async with aiohttp.request("GET", url, headers={"Connection": "close"} | headers) as answer:
            return answer.status, time.monotonic() - began_s
    except (aiohttp.ClientError, ConnectionError):
        return None, time.monotonic() - began_s


async def assert_answered(attack: str, asked: int, url: str, **headers: str) -> None:
    """Assert that every request is answered, and print a line of the table."""
    answers = [await ask(url, **headers) for _ in range(asked)]
    answered = [status for status, _ in answers].count(200)
    times_ms = [seconds * 1_000 for _, seconds in answers]
    who = ", ".join(headers) or "probe"
    print(f"{attack}: {answered}/{asked} ({who}), median {median(times_ms):.0f} ms, slowest {max(times_ms):.0f} ms")
    assert answered == asked


@pytest.mark.parametrize("attack", ["keep_alive", "hammer", "slow_head", "half_closed", "idle", "slow_reader"])
async def test_every_probe_is_answered(attack: str) -> None:
    server = AdminServer(CollectorRegistry(), lambda: {"lanes": None}, dict, lambda _: None)
    port = await server.start("127.0.0.1", 0)
    try:
        async with asyncio.timeout(WITHIN_S), attacking(port, **{attack: CLIENTS}):
            await assert_answered(attack, PROBES, f"http://127.0.0.1:{port}/livez")
    finally:
        await server.stop()


async def log_in(site: Site) -> str:
    """The cookie of a new session."""
    url = f"http://127.0.0.1:{site.port}/login"
    async with site.client.post(url, data={"token": TOKEN}, allow_redirects=False) as answer:
        assert answer.status == 303
        return answer.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("attack", ["login_flood", "login_once", "keep_alive"])
async def test_every_user_is_answered(attack: str) -> None:
    async with asyncio.timeout(WITHIN_S), serving() as site:
        cookie = await log_in(site)
        async with attacking(site.port, **{attack: CROWD}):
            url = f"http://127.0.0.1:{site.port}/"
            await assert_answered(attack, REQUESTS, url, Cookie=cookie)
            await assert_answered(attack, REQUESTS, url, Authorization=f"Bearer {TOKEN}")
