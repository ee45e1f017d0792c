"""A TCP proxy between workers and a broker, to delay, cut and half-close what they say to each other."""

import asyncio
import contextlib
from typing import Self

_CHUNK_BYTES = 65_536


class Proxy:
    """Forwards connections of `port` to `target_port`, both on loopback; the broker has to advertise `port`."""

    def __init__(self, port: int, target_port: int) -> None:
        self.delay_s = 0.0
        """How long every chunk is held back, either way."""
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut(self) -> None:
        """End all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def half_close(self) -> None:
        """Tell both ends of every connection that no more will come, and keep listening to them."""
        for writer in list(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._writers.add(writer)
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(upstream)
            await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer))
            self._writers.discard(upstream)
        self._writers.discard(writer)
        self._links.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
        except (OSError, RuntimeError):
            pass  # the other end is gone, or was told that no more will come
        finally:
            writer.close()
