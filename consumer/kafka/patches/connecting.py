"""One unreachable broker does not delay requests to the others.

Facts of aiokafka 0.14 that force it:

1. Where any broker would do, aiokafka picks one at random, connected or not.
2. An attempt to connect may last as long as a request, and the client opens no other connection meanwhile.
3. Each client repeats such attempts ten times a second.
"""
# ruff: noqa: SLF001 - this is the place for it

import asyncio
import random
import time
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from msgspec import Struct

from consumer.kafka.patches.internals import find_connection

_CONNECT_S: Final = 10.0
"""How long one attempt may last."""
_FREE_S: Final = 3.0
"""How long all clients may try to connect to a broker; after that the process makes one attempt at a time."""
_PAUSE_S: Final = 1.0
"""The time between those attempts."""

_connect = AIOKafkaClient._get_conn


class _Attempts(Struct):
    """Attempts of this process to connect to a broker since it last succeeded, by the monotonic clock."""

    first_s: float
    paused_until_s: float = 0.0


_attempts: dict[tuple[str, int], _Attempts] = {}
"""By host and port."""


def install() -> None:
    """Make every client prefer brokers that it is connected to, and bound its attempts to connect to others.

    May be called again.
    """
    AIOKafkaClient.get_random_node = _choose_node
    AIOKafkaClient._get_conn = _connect_within_bounds


def _choose_node(client: Any) -> int | None:
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    connected = [node for node in nodes if find_connection(client, node, ConnectionGroup.DEFAULT)]
    return random.choice(connected or nodes) if nodes else None  # noqa: S311 - no secret


async def _connect_within_bounds(
    client: Any, node: Any, *, group: int = ConnectionGroup.DEFAULT, no_hint: bool = False
) -> Any:
    """The connection to a node, None if it cannot be made now."""
    broker = client.cluster.broker_metadata(node)
    if broker is None or find_connection(client, node, group):
        return await _connect(client, node, group=group, no_hint=no_hint)
    address, now_s = (broker.host, broker.port), time.monotonic()
    attempts = _attempts.setdefault(address, _Attempts(now_s))
    if now_s - attempts.first_s > _FREE_S and now_s < attempts.paused_until_s:
        client.force_metadata_update()  # as aiokafka does after a failure: another broker may lead by now
        return None
    attempts.paused_until_s = now_s + _CONNECT_S
    try:
        async with asyncio.timeout(_CONNECT_S):
            connection = await _connect(client, node, group=group, no_hint=no_hint)
    except TimeoutError:
        client.force_metadata_update()
        connection = None
    finally:
        attempts.paused_until_s = time.monotonic() + _PAUSE_S
    if connection is not None:
        _attempts.pop(address, None)
    return connection
