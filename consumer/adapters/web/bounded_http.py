"""An HTTP server on the worker's loop that no client can use to stall or fill the worker.

1. At most `connections_max` connections are open. Past it the one that has been waiting longest for its client is
   closed in favour of the new one, so that a probe is answered however many others hold on.
2. A request arrives whole within `request_s` and `request_bytes_max`, and an answer is handled and taken within
   `answer_s` each, else its connection is aborted: what a client does not read is not kept for it.
3. Requests are handled at `per_s`, and connections accepted at twice that; what is more waits for its turn, one request
   per connection, or in the system's queue.
4. Each connection that was ended for one of these reasons is told to `on_refused`.

aiohttp bounds lines, fields and idle connections by itself; it has no limit on connections, none on slow requests,
and closing its connections waits for clients to read what was sent.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Literal, get_args

from aiohttp import web
from msgspec import Struct

Refusal = Literal["connections", "size", "slow", "descriptors", "unauthorized", "misdirected"]
"""Why a connection was ended or not made: too many, too large, too slow, no file descriptor left; or why a request was
refused: without the token, or meant for another host."""
REFUSALS: Final[tuple[str, ...]] = get_args(Refusal)

_LINE_BYTES_MAX: Final = 4_096
_FIELDS_MAX: Final = 64
_BACKLOG: Final = 1_024
"""Connections that wait for their turn. Past it they are tried again by their clients only after seconds."""
_SEND_BUFFER_BYTES: Final = 131_072
"""What the system holds of answers that a client does not read. By itself it would grow to megabytes."""
_BURST: Final = 8
_SWEEP_S: Final = 0.25
_PAUSE_S: Final = 1.0
"""How long nothing is accepted after the process had no file descriptor left."""
_LINGER_S: Final = 1.0
_STOP_S: Final = 2.0
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""How a system without IPv6, or with that switched off, answers."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bounds(Struct, frozen=True, kw_only=True):
    """What a client may take. The defaults are ample for probes, scrapers and people."""

    connections_max: int = 64
    request_bytes_max: int = 16_384
    request_s: float = 5.0
    answer_s: float = 10.0
    idle_s: float = 75.0
    """Longer than the usual scrape interval, so that a scraper keeps its connection."""
    per_s: float = 200.0


class BoundedServer:
    """Serves an application's routes within `bounds`. `on_refused` is called from the loop and must not block.

    `is_stream` tells of requests whose answer has no end in time; their number is the application's to limit.
    """

    def __init__(
        self,
        app: web.Application,
        on_refused: Callable[[Refusal], None],
        bounds: Bounds,
        is_stream: Callable[[web.Request], bool] = lambda _: False,
    ) -> None:
        app.middlewares.insert(0, self._admit)
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
        self._is_stream = is_stream
        self._connections: dict[asyncio.BaseTransport, _Connection] = {}
        self._requests = _Pace(bounds.per_s)
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: socket.socket | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> int:
        """Listen on the first address of `host`; returns the port, a free one for 0. Raises OSError if it cannot.

        An unspecified address, as `0.0.0.0` and `::`, stands for all that the machine has of both families.
        """
        loop = asyncio.get_running_loop()
        (family, _, _, _, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if ipaddress.ip_address(address[0]).is_unspecified:
            self._socket = _of_both_families(port)
        else:
            self._socket = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)  # noqa: FBT003 - the name of the method says it
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # inherited when accepting
        await self._runner.setup()
        self._tasks = [asyncio.create_task(self._accept(self._socket)), asyncio.create_task(self._sweep())]
        return int(self._socket.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, let requests in hand end, and close every connection, all within a bounded time."""
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
        pace = _Pace(2 * self._bounds.per_s)  # so that a probe soon gets through a crowd of connections
        while True:
            await pace.turn()
            try:
                accepted, _ = await loop.sock_accept(listening)
            except ConnectionError:  # gone before it was accepted
                continue
            except OSError:
                self._on_refused("descriptors")
                await asyncio.sleep(_PAUSE_S)
                continue
            if not self._make_room():
                self._on_refused("connections")
                accepted.close()
                continue
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._connect, accepted)

    def _make_room(self) -> bool:
        """Whether there is room for a connection, if need be by ending one that waits for its client."""
        if len(self._connections) < self._bounds.connections_max:
            return True
        waiting = [each for each in self._connections.values() if each.handling_since is None]
        if not waiting:
            return False
        self._refuse(min(waiting, key=lambda each: each.waiting_since), "connections")
        return True

    def _refuse(self, connection: "_Connection", why: Refusal) -> None:
        self._on_refused(why)
        connection.abort()

    def _connect(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        return _Connection(self._runner.server(), self._connections, self._refuse, self._bounds.request_bytes_max)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = asyncio.get_running_loop().time()
            late = [each for each in self._connections.values() if each.is_late(now, self._bounds)]
            for connection in late:
                self._refuse(connection, "slow")

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let a whole request through at its turn, and hold its answer to the limit of time."""
        connection = None if request.transport is None else self._connections.get(request.transport)
        if connection is None:
            raise ConnectionResetError
        await request.content.wait_eof()  # the client is still waited for, within `request_s`
        connection.handling()
        try:
            await self._requests.turn()
            async with asyncio.timeout(None if self._is_stream(request) else self._bounds.answer_s):
                return await handler(request)
        finally:
            connection.handled()


def _of_both_families(port: int) -> socket.socket:
    """A socket that listens on every address, on those of IPv4 alone where there is no IPv6."""
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    except ValueError:  # what the module says where the system cannot do both on one socket
        pass
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - as it was asked to


class _Connection(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's protocol, counted and timed."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        connections: "dict[asyncio.BaseTransport, _Connection]",
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
        self.handling_since: float | None = None
        """When the request in hand began to be handled, None if none is."""
        self.waiting_since = self._loop.time()
        """When it connected, or its last request was handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections[transport] = self
        self._request_since = self._loop.time()  # the first request is awaited from the beginning
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.pop(self._transport, None)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._request_bytes += len(data)
        if self._request_bytes > self._request_bytes_max:
            if self.handling_since is None and self._transport is not None:
                self._transport.write(_TOO_LARGE)
            self._refuse(self, "size")
            return
        if self._request_since is None and self.handling_since is None:
            self._request_since = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def handling(self) -> None:
        """A request is there and about to be handled."""
        self.handling_since = self._loop.time()
        self._request_since = None

    def handled(self) -> None:
        """Its answer is about to be sent."""
        self.handling_since = None
        self.waiting_since = self._loop.time()
        self._request_bytes = 0

    def is_late(self, now: float, bounds: Bounds) -> bool:
        """Whether the client takes too long, for its request or for our answer; also keeps the time of the latter."""
        if self._transport is None or not self._transport.get_write_buffer_size():
            self._answer_since = None
        elif self._answer_since is None:
            self._answer_since = now
        return (self._request_since is not None and now - self._request_since > bounds.request_s) or (
            self._answer_since is not None and now - self._answer_since > bounds.answer_s
        )

    def abort(self) -> None:
        """End it at once. What was not sent is dropped: waiting for a client to read it has no bound."""
        if self._transport is not None:
            self._connections.pop(self._transport, None)
            self._transport.abort()


class _Pace:
    """Gives turns at a steady rate, after a few at once."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s
        self._last = 0.0
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for the next turn; in the order of the calls. Who leaves before its turn takes none from others."""
        async with self._queue:
            now = asyncio.get_running_loop().time()
            due = max(self._last + self._gap_s, now - _BURST * self._gap_s)
            if due > now:
                await asyncio.sleep(due - now)
            self._last = due
