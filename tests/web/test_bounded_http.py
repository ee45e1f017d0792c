"""Every limit of the ports, over raw sockets."""

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

from consumer.web.bounded_http import BoundedServer, Bounds, Kind, _Connection
from tests.fakes import turns

WAIT_S = 60.0
STOP_S_MAX = 30.0
"""aiohttp by itself would wait for a minute."""
LARGE = 4 << 20
AMPLE = Bounds(
    connections_max=4,
    peer_connections_max=4,
    running_max=2,
    new_max=2,
    request_bytes_max=8_192,
    request_s=WAIT_S,
    answer_s=WAIT_S,
    idle_s=WAIT_S,
    per_s=10_000.0,
)
"""Without time limits that a busy machine could reach."""
REQUEST_S, ANSWER_S = 0.3, 0.5
"""For servers whose clients are too slow."""
HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A server with pages for the tests."""

    def __init__(self, bounds: Bounds) -> None:
        self.refused: list[str] = []
        self.entered = self.ended = 0
        self.release = asyncio.Event()
        app = web.Application(client_max_size=100)
        app.add_routes(
            [
                web.get("/hello", self._hello),
                web.get("/large", self._large),
                web.get("/held", self._held),
                web.post("/body", self._body),
            ]
        )
        self.server = BoundedServer(app, self.refused.append, bounds, self._kind_of)
        self.port = 0

    async def connect(self, peer: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(peer, 0))

    def _kind_of(self, request: web.Request) -> Kind:
        kind: Kind = request.query.get("kind", "ordinary")  # type: ignore[assignment]
        return kind

    async def _hello(self, _: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def _large(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def _held(self, _: web.Request) -> web.Response:
        self.entered += 1
        try:
            await self.release.wait()
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


async def ask(site: Site, request: bytes) -> bytes:
    """All bytes that come back until the server closes."""
    reader, writer = await site.connect()
    try:
        writer.write(request)
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    finally:
        writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """The bytes that still come before the connection is closed or reset."""
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
async def test_a_request_that_is_not_complete_in_time_is_refused(sent: bytes, then: bytes) -> None:
    async with serving(request_s=REQUEST_S) as site:
        started_s = time.monotonic()
        reader, writer = await site.connect()
        writer.write(sent)
        reading = asyncio.create_task(read_to_end(reader))
        while not reading.done():
            writer.write(then)
            await asyncio.sleep(0.02)
        assert time.monotonic() - started_s >= REQUEST_S
        assert site.refused == ["slow"]
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_dropped() -> None:
    async with serving(answer_s=ANSWER_S) as site:
        reader, writer = await site.connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1)
        await until(lambda: site.server.connections == 0)
        assert site.refused == ["slow"]
        writer.close()


async def test_a_client_that_reads_gets_a_large_answer_whole() -> None:
    async with serving() as site:
        body = await ask(site, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert body.endswith(bytes(LARGE))
        assert site.refused == []


async def test_an_answer_that_is_not_ready_in_time_is_cancelled() -> None:
    async with serving(answer_s=ANSWER_S) as site:
        answer = await ask(site, b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert (site.entered, site.ended) == (1, 1)


async def test_the_answer_for_a_client_that_left_is_cancelled() -> None:
    async with serving() as site:
        _, writer = await site.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.entered == 1)
        writer.transport.abort()
        await until(lambda: site.ended == 1)


async def test_a_new_connection_replaces_the_one_that_waited_longest() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        streams = []
        for _ in range(AMPLE.connections_max):
            streams.append(await site.connect())
            opened.callback(streams[-1][1].close)
            await until(lambda: site.server.connections == len(streams))
        streams[0][1].write(HELLO)  # the oldest, but it has just been served
        assert (await streams[0][0].readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        assert b"hello" in await ask(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert await read_to_end(streams[1][0]) == b""
        assert site.refused == ["connections"]
        streams[0][1].write(HELLO)
        await streams[0][0].readuntil(b"hello")


async def test_a_new_connection_replaces_one_with_a_slow_body() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        for _ in range(AMPLE.connections_max):
            _, writer = await site.connect()
            opened.callback(writer.close)
            writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nx")
        await until(
            lambda: sum(connection._request_bytes > 0 for connection in connections(site)) == AMPLE.connections_max
        )
        await turns()
        assert b"hello" in await ask(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert site.refused == ["connections"]


async def test_a_new_connection_replaces_one_that_waits_for_its_turn() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        streams = [await site.connect() for _ in range(AMPLE.connections_max)]
        for _, writer in streams:
            opened.callback(writer.close)
            writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.entered == AMPLE.running_max)
        await until(lambda: all(connection._has_request for connection in connections(site)))
        waiting, _ = [connection for connection in connections(site) if not connection.is_running]
        _, writer = await site.connect()
        opened.callback(writer.close)
        await until(lambda: bool(site.refused))
        await turns()
        assert site.refused == ["connections"]
        assert waiting not in connections(site)
        site.release.set()
        answers = [await read_to_end_of(b"held", reader) for reader, _ in streams]
        assert sorted(answer.endswith(b"held") for answer in answers) == [False, True, True, True]


async def read_to_end_of(end: bytes, reader: asyncio.StreamReader) -> bytes:
    """The bytes up to `end`, or up to where the connection was closed or reset."""
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.readuntil(end)
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


async def connect_one_by_one(site: Site, opened: AsyncExitStack, *peers: str) -> None:
    for peer in peers:
        before = set(connections(site))
        _, writer = await site.connect(peer)
        opened.callback(writer.close)
        await until(lambda before=before: bool(set(connections(site)) - before))  # type: ignore[misc]


def open_peers(site: Site) -> list[str]:
    return [connection.peer for connection in connections(site)]


def open_numbers(site: Site) -> list[int]:
    return [connection.number for connection in connections(site)]


A, B, C = "127.0.0.1", "127.0.0.2", "127.0.0.3"


async def test_a_peer_at_its_limit_replaces_its_own() -> None:
    async with serving(connections_max=8) as site, AsyncExitStack() as opened:
        await connect_one_by_one(site, opened, B, A, A, A, A)
        assert site.refused == []
        await connect_one_by_one(site, opened, A)
        assert open_peers(site) == [B, A, A, A, A]
        assert site.refused == ["connections"]


async def test_connection_without_an_answer_keeps_its_place() -> None:
    """However often the others are served meanwhile."""
    async with serving() as site, AsyncExitStack() as opened:
        served = [await site.connect() for _ in range(AMPLE.connections_max - 1)]
        for _, writer in served:
            opened.callback(writer.close)
        await connect_one_by_one(site, opened, A)
        for number in range(AMPLE.new_max):
            for reader, writer in served[number:]:
                writer.write(HELLO)
                await reader.readuntil(b"hello")
            assert open_numbers(site) == [*range(number + 1, 5), *range(5, 5 + number)]
            await connect_one_by_one(site, opened, A)
        assert open_numbers(site) == [3, 4, 5, 6]
        await connect_one_by_one(site, opened, A)
        assert open_numbers(site) == [3, 5, 6, 7]


async def test_the_greediest_peer_makes_room() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        await connect_one_by_one(site, opened, C, A, A, B)
        await connect_one_by_one(site, opened, B)
        assert open_peers(site) == [C, A, B, B]


async def test_a_client_with_a_preferred_request_keeps_its_place() -> None:
    async with serving() as site, AsyncExitStack() as opened:
        reader, writer = await site.connect()
        opened.callback(writer.close)
        writer.write(HELLO.replace(b"/hello", b"/hello?kind=preferred"))
        await reader.readuntil(b"hello")
        await connect_one_by_one(site, opened, A, A, A, A, A, A, A)
        assert len(site.refused) == 4
        writer.write(HELLO)
        await reader.readuntil(b"hello")


async def test_a_probe_is_answered_while_no_turn_is_free() -> None:
    """Only as the first request of its connection: the next waits for its turn, as all others."""
    async with serving(connections_max=8) as site, AsyncExitStack() as opened:
        for _ in range(AMPLE.running_max):
            _, writer = await site.connect(B)
            opened.callback(writer.close)
            writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.entered == AMPLE.running_max)
        probe = HELLO.replace(b"/hello", b"/hello?kind=probe")
        for _ in range(20):
            assert b"hello" in await ask(site, probe.replace(b"Host", b"Connection: close\r\nHost"))
        reader, writer = await site.connect()
        opened.callback(writer.close)
        writer.write(probe * 2)
        await reader.readuntil(b"hello")
        await until(lambda: sum(connection._has_request for connection in connections(site)) == AMPLE.running_max + 1)
        site.release.set()
        await reader.readuntil(b"hello")


async def test_a_request_that_has_no_turn_in_time_is_given_up() -> None:
    async with serving(answer_s=ANSWER_S, running_max=1) as site, AsyncExitStack() as opened:
        _, writer = await site.connect()
        opened.callback(writer.close)
        writer.write(b"GET /held?kind=stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.entered == 1)
        answer = await ask(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert answer.startswith(b"HTTP/1.1 504 ")


async def test_a_half_closed_connection_keeps_no_place() -> None:
    async with serving() as site:
        for sent in (b"", b"GET /he", b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await site.connect()
            writer.write(sent)
            writer.write_eof()
            assert await read_to_end(reader) == b""
            await until(lambda: site.server.connections == 0)
            writer.close()
        assert site.entered == site.ended


@pytest.mark.parametrize(
    "request_bytes",
    [
        HELLO.replace(b"Host", b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1_000) for number in range(9)) + b"Host"),
        HELLO * 1_000,
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + bytes(9_000),
    ],
    ids=["fields", "pipelined", "body"],
)
async def test_a_request_that_is_too_large_is_refused(request_bytes: bytes) -> None:
    async with serving() as site:
        reader, writer = await site.connect()
        writer.write(request_bytes)
        answer = await read_to_end(reader)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), "reset, or answered with the reason"
        assert site.refused == ["size"]
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as site:
        answers = await ask(site, HELLO * 20 + b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert [line.split()[1] for line in answers.split(b"\r\n") if b"HTTP/1.1 " in line] == [b"200"] * 20 + [b"404"]


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
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nExpect: \xff\r\nConnection: close\r\n\r\n", b"417"),
        (b"GET /none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", b"417"),
        (b"BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
async def test_an_invalid_request_is_answered_with_its_status(request_bytes: bytes, status: bytes) -> None:
    """And the next client is served."""
    async with serving() as site:
        answer = await ask(site, request_bytes)
        assert answer.split()[1] == status, answer
        assert b"hello" in await ask(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))


async def test_requests_are_handled_at_a_pace() -> None:
    async with serving(per_s=50) as site:
        started_s = time.monotonic()
        answers = await ask(site, HELLO * 40 + b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answers.count(b"hello") == 40
        assert time.monotonic() - started_s > (41 - 10) / 50


async def test_a_client_that_leaves_before_its_turn_uses_none() -> None:
    """After a first few there is one turn a second: the last client would wait a minute for those that left."""
    async with serving(connections_max=64, peer_connections_max=64) as site:
        site.server._turns._gap_s = 1.0
        for _ in range(3):
            crowd = [await site.connect() for _ in range(30)]
            for _, writer in crowd:
                writer.write(HELLO)
            await until(lambda: sum(connection._has_request for connection in connections(site)) > 20)
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: site.server.connections == 0)
        started_s = time.monotonic()
        assert b"hello" in await ask(site, HELLO.replace(b"Host", b"Connection: close\r\nHost"))
        assert time.monotonic() - started_s < 30


LOOPBACKS = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


def own_loopbacks() -> set[str]:
    """The loopback addresses that this machine has."""
    found = set()
    for address, family in LOOPBACKS.items():
        with contextlib.suppress(OSError), socket.create_server((address, 0), family=family):
            found.add(address)
    return found


async def find_answering(site: Site) -> set[str]:
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
        assert await find_answering(site) == own_loopbacks()


@pytest.mark.parametrize("host", sorted(own_loopbacks()))
async def test_a_server_answers_only_under_its_address(host: str) -> None:
    async with serving(host) as site:
        assert await find_answering(site) == {host}


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
        assert await find_answering(site) == {"127.0.0.1"}


@pytest.mark.parametrize("taken", sorted(own_loopbacks()))
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
        await asyncio.wait_for(site.server.stop(), STOP_S_MAX)  # while all clients are still connected
