"""Bounds in time on what aiokafka does.

Facts of aiokafka 0.14 that shape it: closing suppresses CancelledError here and there, and `asyncio.wait_for` waits for
what it has cancelled, so it may wait for ever; a client's `close()` waits until each connection has sent what it still
had, for ever where a broker has stopped reading; and once that wait was cancelled, closing the client again raises
CancelledError, which would end the task that asked for it without a trace.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_CUT_S = 1.0


async def within(seconds: float, doing: Awaitable[T]) -> T:
    """What an awaitable gives. Raises TimeoutError when the time has passed, or if it was cancelled by somebody else.

    It is not waited for any longer, also if it takes no notice of being cancelled.
    """
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done() and not task.cancelled():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(see)
    raise TimeoutError


async def stopped(stopping: Awaitable[None], client: Any, seconds: float) -> None:
    """Wait for a consumer or producer to stop; past the time its connections are cut, within a second more.

    `client` is the AIOKafkaClient that it owns. Never raises.
    """
    writers = [each._writer for each in client._conns.values()]  # noqa: SLF001 - closing lets go of them before they end
    with contextlib.suppress(Exception):  # also what its tasks failed by: the producer is of no use any more
        await within(seconds, stopping)
        return
    for writer in writers:
        if writer is not None:
            writer.transport.abort()
    with contextlib.suppress(Exception):
        await within(_CUT_S, client.close())


def see(task: "asyncio.Future[Any]") -> None:
    """Take notice of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
