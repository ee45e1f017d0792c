"""The limits of the ports, each on its own, over raw sockets."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from consumer.adapters.web.bounded_http import BoundedServer, Bounds, _Connection
from tests.fakes import turns

WAIT_S = 60.0
STOP_S_MAX = 30.0
"""aiohttp by itself would wait for a minute."""
LARGE = 4 << 20
AMPLE = Bounds(
    connections_max=4, request_bytes_max=8_192, request_s=WAIT_S, answer_s=WAIT_S, idle_s=WAIT_S, per_s=10_000.0
)
"""No limit on time that a busy machine could meet."""
REQUEST_S, ANSWER_S = 0.3, 0.5
"""Of servers whose clients are to be too slow."""
HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A server with a few odd pages."""

    def __init__(self, bounds: Bounds) -> None:
        self.refused: list[str] = []
        self.entered = self.ended = 0
        self.let_go = asyncio.Event()
        app = web.Application(client_max_size=100)
        app.add_routes(
            [
                web.get("/hello", self._hello),
                web.get("/large", self._large),
                web.get("/held", self._held),
                web.post("/body", self._body),
            ]
        )
        self.server = BoundedServer(app, self.refused.append, bounds)
        self.port = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _hello(self, _: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def _large(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def _held(self, _: web.Request) -> web.Response:
        self.entered += 1
        try:
            await self.let_go.wait()
        finally:
            self.ended += 1
        return web.Response(text="held")

    async def _body(self, request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))


@asynccontextmanager
async def serving(host: str = "127.0.0.1", **changed: Any) -> AsyncIterator[Site]:
    site = Site(replace(AMPLE, **changed))
    site.port = await site.server.start(host, 0)
    try:
        yield site
    finally:
        await asyncio.wait_for(site.server.stop(), STOP_S_MAX)
        assert site.server.connections == 0


async def answer(site: Site, request: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await site.connect()
    try:
        writer.write(request)
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still comes before the connection is closed or reset."""
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    except ConnectionError:
        return b""


def connections(site: Site) -> Collection[_Connection]:
    return site.server._connections.values()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (b"", b""),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n", b"X"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n", b"x"),
        (HELLO + b"GET /he", b"l"),
    ],
    ids=["nothing", "head", "body", "second request"],
)
async def test_a_request_that_does_not_come_to_its_end_in_time_ends_the_connection(sent: bytes, then: bytes) -> None:
    async with serving(request_s=REQUEST_S) as site:
        started_s = time.monotonic()
        reader, writer = await site.connect()
        writer.write(sent)
        gone = asyncio.create_task(ended(reader))
        while not gone.done():
            writer.write(then)
            await asyncio.sleep(0.02)
        assert time.monotonic() - started_s >= REQUEST_S
        assert site.refused == ["slow"]
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_dropped_with_what_is_left_of_it() -> None:
    async with serving(answer_s=ANSWER_S) as site:
        reader, writer = await site.connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1)
        await until(lambda: site.server.connections == 0)
        assert site.refused == ["slow"]
        writer.close()


async def test_a_client_that_reads_gets_a_large_answer_whole() -> None:
    async with serving() as site:
        body = await answer(site, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert body.endswith(bytes(LARGE))
        assert site.refused == []


async def test_an_answer_that_is_not_ready_in_time_is_given_up() -> None:
    async with serving(answer_s=ANSWER_S) as site:
        told = await answer(site, b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 504 ")
        assert (site.entered, site.ended) == (1, 1)


async def test_what_is_done_for_a_client_that_left_is_given_up() -> None:
    async with serving() as site:
        _, writer = await site.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.entered == 1)
        writer.transport.abort()
        await until(lambda: site.ended == 1)


async def test_past_the_limit_the_connection_that_waited_longest_makes_room() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        streams = []
        for _ in range(AMPLE.connections_max):
            streams.append(await site.connect())
            opened.callback(streams[-1][1].close)
            await until(lambda: site.server.connections == len(streams))
        streams[0][1].write(HELLO)  # the oldest, but it has just been served
        assert (await streams[0][0].readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        assert b"hello" in await answer(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert await ended(streams[1][0]) == b""
        assert site.refused == ["connections"]
        streams[0][1].write(HELLO)
        await streams[0][0].readuntil(b"hello")


async def test_past_the_limit_one_that_is_slow_with_its_body_makes_room() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        for _ in range(AMPLE.connections_max):
            _, writer = await site.connect()
            opened.callback(writer.close)
            writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nx")
        await until(lambda: sum(each._request_bytes > 0 for each in connections(site)) == AMPLE.connections_max)
        await turns()
        assert b"hello" in await answer(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert site.refused == ["connections"]


async def test_past_the_limit_a_connection_is_refused_while_all_others_are_being_served() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        streams = [await site.connect() for _ in range(AMPLE.connections_max)]
        for reader, writer in streams:
            opened.callback(writer.close)
            writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reader
        await until(lambda: site.entered == AMPLE.connections_max)
        assert await answer(site, b"") == b""
        assert site.refused == ["connections"]
        site.let_go.set()
        for reader, _ in streams:
            await reader.readuntil(b"held")


@pytest.mark.parametrize(
    "request_bytes",
    [
        HELLO.replace(b"Host", b"".join(b"X-%d: %s\r\n" % (each, b"x" * 1_000) for each in range(9)) + b"Host"),
        HELLO * 1_000,
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + bytes(9_000),
    ],
    ids=["fields", "pipelined", "body"],
)
async def test_more_than_a_request_may_have_is_refused(request_bytes: bytes) -> None:
    async with serving() as site:
        reader, writer = await site.connect()
        writer.write(request_bytes)
        told = await ended(reader)
        assert told == b"" or told.startswith(b"HTTP/1.1 431 "), "reset, or told why"
        assert site.refused == ["size"]
        writer.close()


async def test_pipelined_requests_within_the_limit_are_answered_in_order() -> None:
    async with serving() as site:
        told = await answer(site, HELLO * 20 + b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert [line.split()[1] for line in told.split(b"\r\n") if b"HTTP/1.1 " in line] == [b"200"] * 20 + [b"404"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5_000 + b"\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"Host: x\r\n\r\n", b"400"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n" + bytes(9), b"200"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\nConnection: close\r\n\r\n" + bytes(200), b"413"),
        (b"DELETE /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
async def test_what_is_no_good_request_is_told_so_and_the_next_client_is_served(
    request_bytes: bytes, status: bytes
) -> None:
    async with serving() as site:
        told = await answer(site, request_bytes)
        assert told.split()[1] == status, told
        assert b"hello" in await answer(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))


async def test_requests_come_at_a_pace() -> None:
    async with serving(per_s=50) as site:
        started_s = time.monotonic()
        told = await answer(site, HELLO * 40 + b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert told.count(b"hello") == 40
        assert time.monotonic() - started_s > (41 - 10) / 50


async def test_who_leaves_before_its_turn_takes_none_from_others() -> None:
    """After a few at once a turn comes once a second: behind those who have left, the last would wait for a minute."""
    async with serving(connections_max=64) as site:
        site.server._requests._gap_s = 1.0
        for _ in range(3):
            crowd = [await site.connect() for _ in range(30)]
            for _, writer in crowd:
                writer.write(HELLO)
            await until(lambda: sum(each.handling_since is not None for each in connections(site)) > 20)
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: site.server.connections == 0)
        started_s = time.monotonic()
        assert b"hello" in await answer(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert time.monotonic() - started_s < 30


LOOPBACKS = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


def had() -> set[str]:
    """The loopback addresses that this machine has."""
    found = set()
    for address, family in LOOPBACKS.items():
        with contextlib.suppress(OSError), socket.create_server((address, 0), family=family):
            found.add(address)
    return found


async def answering(site: Site) -> set[str]:
    """The loopback addresses under which a server answers."""
    found = set()
    for address in LOOPBACKS:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(address, site.port)
            writer.write(HELLO)
            assert await asyncio.wait_for(reader.readline(), WAIT_S) == b"HTTP/1.1 200 OK\r\n"
            found.add(address)
            writer.close()
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
async def test_an_unspecified_address_is_of_both_families(host: str) -> None:
    """A probe may come by either, whichever the cluster prefers."""
    async with serving(host) as site:
        assert await answering(site) == had()


@pytest.mark.parametrize("host", sorted(had()))
async def test_an_address_is_no_other(host: str) -> None:
    async with serving(host) as site:
        assert await answering(site) == {host}


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, None])
async def test_without_ipv6_it_serves_ipv4(monkeypatch: pytest.MonkeyPatch, error: int | None) -> None:
    """None: the system has both, but not on one socket."""
    create_server = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: Any) -> socket.socket:
        if options.get("dualstack_ipv6"):
            raise ValueError if error is None else OSError(error, "no IPv6")
        return create_server(address, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    async with serving("::") as site:
        assert await answering(site) == {"127.0.0.1"}


@pytest.mark.parametrize("taken", sorted(had()))
async def test_a_port_taken_in_one_family_is_taken(taken: str) -> None:
    server = BoundedServer(web.Application(), lambda _: None, AMPLE)
    with socket.create_server((taken, 0), family=LOOPBACKS[taken]) as other, pytest.raises(OSError, match="in use"):
        await server.start("::", other.getsockname()[1])


async def test_a_busy_server_stops_in_bounded_time() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        for sent in (
            b"",
            b"GET /he",
            b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            _, writer = await site.connect()
            opened.callback(writer.close)
            writer.write(sent)
        await until(lambda: site.entered == 1)
        await asyncio.wait_for(site.server.stop(), STOP_S_MAX)  # while all of them are still there
