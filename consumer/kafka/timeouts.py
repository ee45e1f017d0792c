"""Time limits for calls of aiokafka.

Facts of aiokafka 0.14 that shape this module:

1. `stop()` and `close()` suppress CancelledError in places. `asyncio.wait_for` waits for the task that it has
   cancelled, so with them it may wait for ever.
2. A client's `close()` waits until each connection has sent what it still holds, for ever where a broker has stopped
   reading.
3. Once that wait was cancelled, closing the client again raises CancelledError, which would end the calling task
   without a trace.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

from consumer.kafka.patches.internals import list_transports

T = TypeVar("T")

_ABORT_S = 1.0


async def wait(timeout_s: float, awaitable: Awaitable[T]) -> T:
    """Wait for a result for at most `timeout_s`, also if the awaitable ignores its cancellation.

    Raises TimeoutError, also if the awaitable was cancelled by other code.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if task.done() and not task.cancelled():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(consume_exception)
    raise TimeoutError


async def stop_client(stopping: Awaitable[None], client: Any, timeout_s: float) -> None:
    """Wait for a consumer or producer to stop; after `timeout_s` abort its connections, which takes a second at most.

    `client` is the AIOKafkaClient that it owns. Never raises.
    """
    transports = list_transports(client)
    with contextlib.suppress(Exception):  # also errors of its own tasks: it is not used any more
        await wait(timeout_s, stopping)
        return
    for transport in transports:
        transport.abort()
    with contextlib.suppress(Exception):
        await wait(_ABORT_S, client.close())


def consume_exception(task: "asyncio.Future[Any]") -> None:
    """Retrieve a task's exception, so that asyncio does not log "exception was never retrieved"."""
    if not task.cancelled():
        task.exception()
