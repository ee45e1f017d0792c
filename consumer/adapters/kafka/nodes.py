"""Brokers that are unreachable must not hold up what is asked of others.

Facts of aiokafka 0.14 that shape it: where any broker would do, it asks one at random, also one that is unreachable;
connecting may take as long as a request, and no other connection of the client is made meanwhile; and it tries again
ten times a second, in each client by itself.
"""

import asyncio
import random
import time
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from msgspec import Struct

_CONNECT_S: Final = 10.0
_PATIENCE_S: Final = 3.0
"""How long every client may try to connect to a broker; after that one at a time does, in the whole process."""
_AGAIN_S: Final = 1.0
"""The time between these attempts."""

_connect = AIOKafkaClient._get_conn  # noqa: SLF001 - nothing public makes a connection


class _Attempts(Struct):
    """To connect to a broker, since there was a success."""

    first_s: float
    quiet_until_s: float = 0.0


_attempts: dict[tuple[str, int], _Attempts] = {}


def spare_unreachable() -> None:
    """Have every client prefer brokers that it is connected to, and waste no time on those that are unreachable."""
    AIOKafkaClient.get_random_node = _choose
    AIOKafkaClient._get_conn = _connect_within_bounds  # noqa: SLF001 - as above


async def reach(client: AIOKafkaClient) -> None:
    """Connect to a broker, whichever can be reached. Raises KafkaConnectionError if none can."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        if await client.ready(node):
            return
    if nodes:
        raise KafkaConnectionError


def _choose(client: Any) -> int | None:
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    connected = [node for node in nodes if _connection(client, node, ConnectionGroup.DEFAULT)]
    return random.choice(connected or nodes) if nodes else None  # noqa: S311 - no secret


async def _connect_within_bounds(
    client: Any, node: Any, *, group: int = ConnectionGroup.DEFAULT, no_hint: bool = False
) -> Any:
    """A connection, or None where there is none."""
    broker = client.cluster.broker_metadata(node)
    if broker is None or _connection(client, node, group):
        return await _connect(client, node, group=group, no_hint=no_hint)
    address, now_s = (broker.host, broker.port), time.monotonic()
    attempts = _attempts.setdefault(address, _Attempts(now_s))
    if now_s - attempts.first_s > _PATIENCE_S and now_s < attempts.quiet_until_s:
        client.force_metadata_update()  # as aiokafka does after a failure: another broker may lead by now
        return None
    attempts.quiet_until_s = now_s + _CONNECT_S
    try:
        async with asyncio.timeout(_CONNECT_S):
            connection = await _connect(client, node, group=group, no_hint=no_hint)
    except TimeoutError:
        client.force_metadata_update()
        connection = None
    finally:
        attempts.quiet_until_s = time.monotonic() + _AGAIN_S
    if connection is not None:
        _attempts.pop(address, None)
    return connection


def _connection(client: Any, node: Any, group: int) -> Any:
    """The connection to a broker, None if there is none."""
    found = client._conns.get((node, group))  # noqa: SLF001 - as above
    return found if found is not None and found.connected() else None
