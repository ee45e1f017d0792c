"""A TCP proxy between workers and a broker: it delays, throttles, cuts, half-closes, refuses, hangs, delivers late."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Self

PRODUCE, END_TXN, TXN_OFFSET_COMMIT = 0, 26, 28
"""Kinds of request: their numbers in Kafka's protocol."""

_CHUNK_BYTES = 65_536


class Proxy:
    """Forwards connections of `port` to `target_port`, both on loopback; the broker has to advertise `port`."""

    def __init__(self, port: int, target_port: int) -> None:
        self.delay_s = 0.0
        """Seconds by which it delays every request and every chunk of answers."""
        self.bytes_per_s: float | None = None
        """How many bytes of answers it forwards a second, on each connection; None without a limit."""
        self.wanted: int | None = None
        """The kind of request to hold: the next one is kept until `deliver`, and its sender gets no answer."""
        self.passes: Callable[[int], Awaitable[None]] | None = None
        """Awaited with the kind of a request before the request is forwarded."""
        self.port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._late: tuple[asyncio.StreamWriter, bytes] | None = None
        self._passable = asyncio.Event()
        self._passable.set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def __aexit__(self, *_: object) -> None:
        self._passable.set()
        self.refuse()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut(self) -> None:
        """End all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """End all connections and accept none, until `heal`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def hang(self) -> None:
        """Keep and accept connections, but forward nothing until `heal`."""
        self._passable.clear()

    async def heal(self) -> None:
        """Forward again."""
        self._passable.set()
        if self._server is None:
            await self._listen()

    def half_close(self) -> None:
        """Send end-of-file to both ends of every connection, and keep reading from them."""
        for writer in list(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._writers.add(writer)
        await self._passable.wait()
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(upstream)
            await asyncio.gather(self._pump_requests(reader, upstream), self._pump(upstream_reader, writer))
            self._writers.discard(upstream)
        self._writers.discard(writer)
        self._links.discard(task)

    @property
    def has_kept(self) -> bool:
        """Whether there is a request to deliver."""
        return self._late is not None

    def deliver(self) -> None:
        """Forward the held request to the broker, even if its sender has gone."""
        assert self._late is not None
        (writer, request), self._late = self._late, None
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(request)
            writer.write_eof()

    async def _pump_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = await reader.readexactly(4)
                request = size + await reader.readexactly(int.from_bytes(size))
                kind = int.from_bytes(request[4:6])
                if kind == self.wanted:
                    self.wanted, self._late = None, (writer, request)
                    continue
                if self.passes is not None:
                    await self.passes(kind)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passable.wait()
                writer.write(request)
                await writer.drain()
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            pass  # as in `_pump`
        finally:
            if self._late is None or self._late[0] is not writer:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(chunk) / self.bytes_per_s)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passable.wait()
                writer.write(chunk)
                await writer.drain()
        except (OSError, RuntimeError):
            pass  # the other end is gone, or has been sent end-of-file
        finally:
            writer.close()
