"""The admin port, over real HTTP."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, Counter

from consumer.web.admin_port import AdminServer

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
WAIT_S = 30.0
"""A bound for what might hang: aiohttp takes a minute to stop, and keeps connections for longer than that."""


class Site:
    """A server on a free port, its checks, and a client."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.live: dict[str, str | None] = {"lanes": None}
        self.ready: dict[str, str | None] = {"group": None, "lanes": None}
        self.refused: list[str] = []
        self.server = AdminServer(self.registry, lambda: self.live, lambda: self.ready, self.refused.append)
        self.client: ClientSession
        self.port = 0

    async def get(self, path: str, **options: Any) -> tuple[int, str, str]:
        async with self.client.get(f"http://127.0.0.1:{self.port}{path}", **options) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.text()

    async def probe(self, path: str) -> tuple[int, Any]:
        async with self.client.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def serving() -> AsyncGenerator[Site, None]:
    site = Site()
    site.port = await site.server.start("127.0.0.1", 0)
    try:
        async with ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as site.client:
            yield site
    finally:
        await site.server.stop()


async def test_probes_name_every_check_and_its_result() -> None:
    async with serving() as site:
        assert await site.probe("/livez") == (200, {"lanes": "ok"})
        assert await site.probe("/readyz") == (200, {"group": "ok", "lanes": "ok"})
        site.ready["lanes"] = "partitions [3] are not open"
        assert await site.probe("/readyz") == (503, {"group": "ok", "lanes": "partitions [3] are not open"})
        assert await site.probe("/livez") == (200, {"lanes": "ok"})
        site.live["lanes"] = ""
        assert await site.probe("/livez") == (503, {"lanes": ""})


async def test_a_check_that_raises_is_an_error_without_details() -> None:
    def check() -> dict[str, str | None]:
        raise ValueError("mark-of-a-record")

    server = AdminServer(CollectorRegistry(), check, dict, print)
    port = await server.start("127.0.0.1", 0)
    try:
        async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/livez") as answer:
            assert answer.status == 500
            assert "mark-of-a-record" not in await answer.text()
    finally:
        await server.stop()


async def test_metrics_come_in_the_format_of_the_accept_header() -> None:
    async with serving() as site:
        Counter("conversation_x_total", "Help.", registry=site.registry).inc(3)
        status, kind, text = await site.get("/metrics")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert "conversation_x_total 3.0" in text
        assert "# EOF" not in text
        status, kind, text = await site.get("/metrics", headers={"Accept": f"{OPENMETRICS},text/plain;q=0.5"})
        assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
        assert "conversation_x_total 3.0" in text
        assert text.endswith("# EOF\n")


async def test_scrapes_share_a_text_for_a_short_time() -> None:
    async with serving() as site:
        counter = Counter("conversation_x_total", "Help.", registry=site.registry)
        texts = {(await site.get("/metrics"))[2]}
        counter.inc()
        async with asyncio.timeout(WAIT_S):
            while len(texts) == 1:
                texts.add((await site.get("/metrics"))[2])
        assert {"conversation_x_total 0.0" in text for text in texts} == {True, False}


@pytest.mark.parametrize(
    "accept", [f"{OPENMETRICS}; version=abc", "text/plain; version=1e9.x", "application/openmetrics-text;version="]
)
async def test_an_invalid_accept_header_gets_the_plain_text(accept: str) -> None:
    async with serving() as site:
        Counter("conversation_x_total", "Help.", registry=site.registry)
        status, _, text = await site.get("/metrics", headers={"Accept": accept})
        assert status == 200
        assert "conversation_x_total 0.0" in text


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez/x", "/debug", "/conversations/1", "/..%2f..%2fetc/passwd"])
async def test_everything_else_is_not_found(path: str) -> None:
    async with serving() as site:
        status, _, _ = await site.get(path)
        assert status == 404


async def test_requests_are_bounded() -> None:
    async with serving() as site:
        status, _, _ = await site.get("/livez?" + "x" * 5_000)
        assert status == 400
        status, _, _ = await site.get("/livez", headers={"X-Long": "x" * 5_000})
        assert status == 400
        assert (await site.probe("/livez"))[0] == 200


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = AdminServer(CollectorRegistry(), dict, dict, print)
        with pytest.raises(OSError, match="Address already in use"):
            await server.start("127.0.0.1", taken.getsockname()[1])


async def test_it_stops_in_bounded_time_with_clients_connected() -> None:
    site = Site()
    port = await site.server.start("127.0.0.1", 0)
    _, idle = await asyncio.open_connection("127.0.0.1", port)
    _, halfway = await asyncio.open_connection("127.0.0.1", port)
    halfway.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    await halfway.drain()
    try:
        await asyncio.wait_for(site.server.stop(), WAIT_S)
    finally:
        idle.close()
        halfway.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)
