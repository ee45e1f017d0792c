"""Nothing is waited for longer than was said, whatever is done with the time."""

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

from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.unanswered import AnswerLostError

BEYOND_BUFFERS = bytes(64 << 20)
SHORT_S = 0.2
SOON_S = 30.0
"""Far from what a busy machine takes; what is not bounded here takes for ever."""


async def stubborn() -> None:
    """Takes no notice of being cancelled once."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def fails() -> None:
    raise KafkaConnectionError


async def test_what_is_done_in_time_gives_its_result_or_its_error() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    assert await within(SOON_S, seven()) == 7
    with pytest.raises(KafkaConnectionError):
        await within(SOON_S, fails())


async def test_what_suppresses_its_cancellation_is_not_waited_for() -> None:
    started_s = time.monotonic()
    with pytest.raises(TimeoutError):
        await within(SHORT_S, stubborn())
    assert time.monotonic() - started_s < SOON_S


async def test_who_is_cancelled_while_waiting_cancels_what_it_waits_for() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(within(10 * SOON_S, long()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(SOON_S):
        await ended.wait()


@asynccontextmanager
async def frozen_broker() -> AsyncIterator[int]:
    """The port of a broker that tells its versions, and then reads no more."""
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        correlation = (await reader.readexactly(length))[4:8]
        answer = correlation + ApiVersionResponse_v0(0, [(3, 0, 5)]).encode()
        writer.write(struct.pack(">i", len(answer)) + answer)
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
async def test_connections_that_a_broker_does_not_read_from_are_cut(stops: str) -> None:
    async with frozen_broker() as port:
        client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{port}")
        connection = await create_conn("127.0.0.1", port)
        client._conns[1, ConnectionGroup.DEFAULT] = connection
        transport = connection._writer.transport
        connection._writer.write(BEYOND_BUFFERS)
        started_s = time.monotonic()
        await stopped(stubborn() if stops == "never" else client.close(), client, SHORT_S)
        assert SHORT_S <= time.monotonic() - started_s < SOON_S  # by itself it would wait for the broker
        assert transport.get_write_buffer_size() == 0


async def test_what_a_client_fails_by_at_its_end_is_seen() -> None:
    """The requests that its tasks still had out fail too, by errors of ours: nobody may have to expect those."""

    async def stop() -> None:
        raise AnswerLostError("EndTxnRequest")

    await stopped(stop(), AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SHORT_S)


@pytest.mark.parametrize("stopping", [fails, stubborn])
async def test_a_client_without_connections_is_let_go_too(stopping: Callable[[], Awaitable[None]]) -> None:
    started_s = time.monotonic()
    await stopped(stopping(), AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SHORT_S)
    assert time.monotonic() - started_s < SOON_S
