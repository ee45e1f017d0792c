"""What aiokafka's clients, group members and producers know but do not make public."""
# ruff: noqa: SLF001 - this is the place for it

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from msgspec import Struct


class ProducerIdentity(Struct, frozen=True):
    """How brokers know a producer that has started."""

    transactional_id: str
    producer_id: int
    epoch: int


def client_of(owner: AIOKafkaConsumer | AIOKafkaAdminClient) -> AIOKafkaClient:
    """The network client of a consumer or an admin client.

    Forced by: only producers make theirs public, and requests that aiokafka does not offer need one.
    """
    return owner._client


def find_connection(client: AIOKafkaClient, node: Any, group: int) -> Any | None:
    """The open connection to a node, None if there is none.

    Forced by: the public `ready` opens a connection where there is none.
    """
    connection = client._conns.get((node, group))
    return connection if connection is not None and connection.connected() else None


def find_connected(client: AIOKafkaClient) -> list[int]:
    """The nodes to which there is an open connection, apart from connections to coordinators.

    Forced by: as `find_connection`.
    """
    return [
        node
        for (node, group), connection in client._conns.items()
        if group == ConnectionGroup.DEFAULT and connection.connected()
    ]


def is_connected(client: AIOKafkaClient) -> bool:
    """Whether any connection of a client is open, those to coordinators included.

    Forced by: as `find_connection`.
    """
    return any(connection.connected() for connection in client._conns.values())


def list_transports(client: AIOKafkaClient) -> list[asyncio.WriteTransport]:
    """The transports of all connections of a client. To be called before the client is closed.

    Forced by: `close()` waits until each connection has sent what it still holds, for ever where a broker has stopped
    reading. It drops its references to the transports first, so that nothing could abort them later.
    """
    writers = [connection._writer for connection in client._conns.values()]
    return [writer.transport for writer in writers if writer is not None]


def mark_polled(consumer: AIOKafkaConsumer) -> None:
    """Restart the clock of `max_poll_interval_ms`.

    Forced by: only a fetch restarts it. A member that fetches nothing for so long leaves the group and cannot come
    back, though it may have nothing to fetch: no partition, only blocked lanes, a long restore.
    """
    consumer._subscription._last_fetch_ended = time.monotonic()


def coordinator_of(consumer: AIOKafkaConsumer) -> Any:
    """The member side of a consumer group, None before the consumer has started.

    Forced by: the member id, the generation and the errors of the membership are known only there. A consumer reports
    such an error at its next fetch, which a member without partitions never makes.
    """
    return consumer._coordinator


async def send_to_coordinator(coordinator: Any, request: Any) -> Any:
    """Send a request to the broker that coordinates the group of a member. Raises KafkaError.

    Forced by: `committed()` takes an error of the whole response for "nothing committed", so the response itself is
    needed; and no public call asks for the membership.
    """
    return await coordinator._send_req(request)


def has_ended(coordinator: Any) -> bool:
    """Whether a member has stopped to coordinate, which it never does while it works.

    Forced by: `check_errors()` is silent where the task has ended without an error.
    """
    return bool(coordinator._coordination_task.done())


def identify_producer(producer: AIOKafkaProducer) -> ProducerIdentity:
    """The identity of a transactional producer.

    Forced by: requests that end a transaction without aiokafka need all three values, and none is public.
    """
    manager = producer._txn_manager
    return ProducerIdentity(manager.transactional_id, manager.producer_id, manager.producer_epoch)


def find_transaction_error(producer: AIOKafkaProducer) -> BaseException | None:
    """The error that broke the open transaction, None if it is not broken.

    Forced by: after such an error every other call fails too, with an error that does not name the cause.
    """
    ending = producer._txn_manager.wait_for_transaction_end()
    return ending.exception() if ending.done() and not ending.cancelled() else None
