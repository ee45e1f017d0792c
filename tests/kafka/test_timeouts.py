"""No wait lasts longer than its limit, whatever the awaitable does."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionResponse_v0

from consumer.kafka.patches.lost_responses import ResponseLostError
from consumer.kafka.timeouts import stop_client, wait

BEYOND_BUFFERS = bytes(64 << 20)
SHORT_S = 0.2
SOON_S = 30.0
"""Far from what a busy machine takes; a wait without a limit takes for ever."""


async def ignore_cancellation() -> None:
    """Ignores its first cancellation."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def fail() -> None:
    raise KafkaConnectionError


async def test_result_or_error_in_time_is_passed_on() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    assert await wait(SOON_S, seven()) == 7
    with pytest.raises(KafkaConnectionError):
        await wait(SOON_S, fail())


async def test_awaitable_that_ignores_cancellation_is_abandoned() -> None:
    started_s = time.monotonic()
    with pytest.raises(TimeoutError):
        await wait(SHORT_S, ignore_cancellation())
    assert time.monotonic() - started_s < SOON_S


async def test_cancelled_wait_cancels_its_awaitable() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(wait(10 * SOON_S, long()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(SOON_S):
        await ended.wait()


@asynccontextmanager
async def frozen_broker() -> AsyncIterator[int]:
    """The port of a broker that reports its versions, and then stops reading."""
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        correlation = (await reader.readexactly(length))[4:8]
        response = correlation + ApiVersionResponse_v0(0, [(3, 0, 5)]).encode()
        writer.write(struct.pack(">i", len(response)) + response)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await released.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        released.set()
        server.close()


@pytest.mark.parametrize("stops", ["never", "as far as its client"])
async def test_connections_to_a_frozen_broker_are_aborted(stops: str) -> None:
    async with frozen_broker() as port:
        client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{port}")
        connection = await create_conn("127.0.0.1", port)
        client._conns[1, ConnectionGroup.DEFAULT] = connection
        transport = connection._writer.transport
        connection._writer.write(BEYOND_BUFFERS)
        started_s = time.monotonic()
        await stop_client(ignore_cancellation() if stops == "never" else client.close(), client, SHORT_S)
        assert SHORT_S <= time.monotonic() - started_s < SOON_S  # without the limit it would wait for the broker
        assert transport.get_write_buffer_size() == 0


async def test_errors_of_a_client_that_stops_are_suppressed() -> None:
    """The requests that are still under way fail too, with errors of this service."""

    async def stop() -> None:
        raise ResponseLostError("EndTxnRequest")

    await stop_client(stop(), AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SHORT_S)


@pytest.mark.parametrize("stopping", [fail, ignore_cancellation])
async def test_client_without_connections_is_stopped_in_time(stopping: Callable[[], Awaitable[None]]) -> None:
    started_s = time.monotonic()
    await stop_client(stopping(), AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SHORT_S)
    assert time.monotonic() - started_s < SOON_S
