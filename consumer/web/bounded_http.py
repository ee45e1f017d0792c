"""An HTTP server on the worker's loop. No client can stall the worker with it, or fill its memory.

1. At most `connections_max` connections are open, at most `peer_connections_max` of one peer. A further one always gets
   a place: that of the greediest peer's connection that has waited longest, for its client or for its turn. One without
   an answer so far keeps its place while `new_max` others come, which is long enough to read its request.
2. A request has to arrive within `request_s` and `request_bytes_max`. The server has `answer_s` to make the answer, its
   turn included, and the client `answer_s` to read it. Else the server aborts the connection and drops what the client
   has not read.
3. The server handles `per_s` requests a second, at most `running_max` at a time, and accepts twice as many connections.
   More of them wait for their turn: one request per connection, and connections in the system's queue.
4. A probe that is the first request of its connection is answered at once, without a turn: no other client keeps it
   from its answer. The rate of new connections limits such probes as well.
5. Preferred requests and streams, those with a right to an answer, get the next turn. Their connections keep their
   places as long as others can be taken.
6. `on_refused` is called for every connection that the server ends for one of these reasons.

aiohttp bounds lines, fields and idle connections by itself. It limits neither connections nor slow requests, and when
it closes connections it waits for clients to read what was sent.
"""

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from aiohttp import ClientConnectionResetError, web
from msgspec import Struct

from consumer.telemetry.labels import Refusal
from consumer.web.peers import peer_of
from consumer.web.turns import Turns

_LINE_BYTES_MAX: Final = 4_096
_FIELDS_MAX: Final = 64
_BACKLOG: Final = 1_024
"""Connections that wait for their turn. The clients of more connections try again only after seconds."""
_SEND_BUFFER_BYTES: Final = 131_072
"""Bytes of an answer that the system holds until the client reads them; by default it would hold megabytes."""
_SWEEP_S: Final = 0.25
_PAUSE_S: Final = 1.0
"""How long the server accepts nothing after the process had no file descriptor left."""
_LINGER_S: Final = 1.0
_STOP_S: Final = 2.0
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""The errors of a system without IPv6, or with IPv6 switched off."""

Kind = Literal["probe", "ordinary", "preferred", "stream"]
"""Of a request. The answer to a stream has no limit in time; the application limits their number."""
_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Bounds(Struct, frozen=True, kw_only=True):
    """The limits for clients. The defaults are ample for probes, scrapers and people."""

    connections_max: int = 64
    peer_connections_max: int = 40
    """A browser has at most 6 connections, a proxy that all clients come through has more."""
    running_max: int = 24
    new_max: int = 16
    request_bytes_max: int = 16_384
    request_s: float = 5.0
    answer_s: float = 10.0
    idle_s: float = 75.0
    """Longer than the usual scrape interval, so that a scraper keeps its connection."""
    per_s: float = 200.0

    def __post_init__(self) -> None:
        """Assert that a peer with all its places has one that is neither in use nor new."""
        assert self.running_max + self.new_max <= self.peer_connections_max <= self.connections_max


class BoundedServer:
    """Serves an application's routes within `bounds`. The loop calls `on_refused`, which must not block."""

    def __init__(
        self,
        app: web.Application,
        on_refused: Callable[[Refusal], None],
        bounds: Bounds,
        kind_of: Callable[[web.Request], Kind] = lambda _: "ordinary",
    ) -> None:
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=bounds.idle_s,
            lingering_time=_LINGER_S,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            max_headers=_FIELDS_MAX,
            shutdown_timeout=_STOP_S,
        )
        self._on_refused = on_refused
        self._bounds = bounds
        self._kind_of = kind_of
        self._connections: dict[asyncio.BaseProtocol, _Connection] = {}
        """By aiohttp's protocol, from the moment when a connection is accepted."""
        self._accepted = 0
        self._turns = Turns(bounds.per_s, bounds.running_max)
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: socket.socket | None = None
        self._handle: _Handler

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> int:
        """Listen on the first address of `host`; returns the port, a free one for 0.

        An unspecified address, `0.0.0.0` or `::`, means all addresses of the machine, of both families. Raises OSError
        if the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        (family, _, _, _, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if ipaddress.ip_address(address[0]).is_unspecified:
            self._socket = _listen_on_all(port)
        else:
            self._socket = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)  # noqa: FBT003 - the method's name says what it means
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted sockets inherit it
        await self._runner.setup()
        assert self._runner.server is not None
        self._handle = self._runner.server.request_handler
        self._runner.server.request_handler = self._admit
        self._tasks = [asyncio.create_task(self._accept(self._socket)), asyncio.create_task(self._sweep())]
        return int(self._socket.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, let current requests end, and close every connection, within a bounded time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        await self._runner.cleanup()
        for connection in list(self._connections.values()):
            connection.abort()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        turns = Turns(2 * self._bounds.per_s, running_max=1)  # so that a probe soon gets through a crowd of connections
        connecting = set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as group:
            while True:
                await turns.acquire("")
                turns.release()
                try:
                    accepted, address = await loop.sock_accept(listening)
                except ConnectionError:  # the client has gone already
                    continue
                except OSError:
                    self._on_refused("descriptors")
                    await asyncio.sleep(_PAUSE_S)
                    continue
                # Several at a time, as each takes some turns of the loop, and a busy one has few. The first requests of
                # these have been read before as many again are accepted.
                connecting.add(group.create_task(self._connect(accepted, peer_of(address[0]))))
                if len(connecting) >= self._bounds.new_max // 2:
                    await asyncio.wait(connecting)
                    connecting.clear()

    async def _connect(self, accepted: socket.socket, peer: str) -> None:
        """Serve an accepted connection."""
        self._make_room(peer)
        assert self._runner.server is not None
        self._accepted += 1
        connection = _Connection(
            self._runner.server(),
            peer,
            self._accepted,
            self._connections,
            self._refuse,
            self._bounds.request_bytes_max,
        )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            connection.abort()

    def _make_room(self, peer: str) -> None:
        """End a connection if one more of this peer would be too many."""
        connections = list(self._connections.values())
        sizes = Counter(connection.peer for connection in connections)
        if sizes[peer] >= self._bounds.peer_connections_max:
            connections = [connection for connection in connections if connection.peer == peer]
        elif len(connections) < self._bounds.connections_max:
            return
        self._refuse(
            min(
                (connection for connection in connections if not connection.is_running),
                key=lambda connection: (
                    connection.is_preferred,
                    -sizes[connection.peer],
                    not connection.has_asked and self._accepted - connection.number < self._bounds.new_max,
                    connection.waiting_since,
                ),
            ),
            "connections",
        )

    def _refuse(self, connection: "_Connection", reason: Refusal) -> None:
        self._on_refused(reason)
        connection.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = asyncio.get_running_loop().time()
            slow = [connection for connection in self._connections.values() if connection.is_slow(now, self._bounds)]
            for connection in slow:
                self._refuse(connection, "slow")

    async def _admit(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request once it is complete and at its turn, within the time for answers."""
        assert isinstance(request, web.Request)
        connection = self._connections.get(request.protocol)
        if connection is None:  # it has ended meanwhile
            return web.Response(status=web.HTTPServiceUnavailable.status_code)
        handler = self._handle
        if "Expect" in request.headers:  # aiohttp would answer it out of turn, and not every value without an error
            handler = _fail_expectation
        else:
            await request.content.wait_eof()  # until here `request_s` applies
        kind = self._kind_of(request)
        connection.note_request(is_preferred=kind in {"preferred", "stream"})
        try:
            if kind == "probe" and not connection.has_asked:
                return await handler(request)
            async with asyncio.timeout(None if kind == "stream" else self._bounds.answer_s):
                await self._turns.acquire(connection.peer, takes_precedence=connection.is_preferred)
                connection.is_running = True
                try:
                    return await handler(request)
                finally:
                    self._turns.release()
        except ClientConnectionResetError:  # the client has gone while it was sent something
            return web.Response(status=web.HTTPServiceUnavailable.status_code)
        finally:
            connection.note_answer()


async def _fail_expectation(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=web.HTTPExpectationFailed.status_code)


def _listen_on_all(port: int) -> socket.socket:
    """A socket that listens on every address; only on those of IPv4 if the system has no IPv6."""
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    except ValueError:  # the system cannot serve both families on one socket
        pass
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - the caller asked for all addresses


class _Connection(asyncio.Protocol):
    """One connection: passes all data on to aiohttp's protocol, and counts and times it."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        peer: str,
        number: int,
        connections: "dict[asyncio.BaseProtocol, _Connection]",
        refuse: Callable[["_Connection", Refusal], None],
        request_bytes_max: int,
    ) -> None:
        self._inner = inner
        self._connections = connections
        self._refuse = refuse
        self._request_bytes_max = request_bytes_max
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._request_bytes = 0
        self._request_since: float | None = None
        self._answer_since: float | None = None
        self._has_request = False
        self.peer = peer
        self.number = number
        """How many connections had been accepted with it."""
        self.has_asked = False
        """Whether a request of this connection has been handled."""
        self.is_preferred = False
        """Whether the newest request is preferred."""
        self.is_running = False
        """Whether a request is being handled, at its turn."""
        self.waiting_since = self._loop.time()
        """Since when it waits: for its client, or once a request has arrived for its turn."""
        connections[inner] = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._request_since = self._loop.time()  # `request_s` of the first request starts with the connection
        self._inner.connection_made(transport)
        if self._inner not in self._connections:  # another one has taken the place meanwhile
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.pop(self._inner, None)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._request_bytes += len(data)
        if self._request_bytes > self._request_bytes_max:
            if not self._has_request and self._transport is not None:
                self._transport.write(_TOO_LARGE)
            self._refuse(self, "size")
            return
        if self._request_since is None and not self._has_request:
            self._request_since = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def note_request(self, *, is_preferred: bool) -> None:
        """A complete request has arrived."""
        self._has_request = True
        self._request_since = None
        self.is_preferred = is_preferred
        self.waiting_since = self._loop.time()

    def note_answer(self) -> None:
        """The answer to the request is ready, or the client is gone."""
        self._has_request = self.is_running = False
        self.has_asked = True
        self.waiting_since = self._loop.time()
        self._request_bytes = 0

    def is_slow(self, now: float, bounds: Bounds) -> bool:
        """Whether the client takes too long, to send its request or to read the answer. Sets when reading began."""
        if self._transport is None or not self._transport.get_write_buffer_size():
            self._answer_since = None
        elif self._answer_since is None:
            self._answer_since = now
        return (self._request_since is not None and now - self._request_since > bounds.request_s) or (
            self._answer_since is not None and now - self._answer_since > bounds.answer_s
        )

    def abort(self) -> None:
        """End the connection at once, without what was not sent: waiting for a client to read has no bound."""
        self._connections.pop(self._inner, None)
        if self._transport is not None:
            self._transport.abort()
