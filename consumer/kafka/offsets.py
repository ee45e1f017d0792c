"""The offsets at which partitions begin and end, as the brokers that lead them report.

aiokafka's own calls use the isolation level of their consumer, wait for leaders until they time out, and do not name
the leader that did not answer.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, OffsetResetStrategy
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
    UnsupportedVersionError,
    for_code,
)
from aiokafka.protocol.offset import OffsetRequest

from consumer.kafka.protocol import TopicsRequest

T = TypeVar("T")
Offsets = dict[TopicPartition, int]

MOVING_CODES: Final = frozenset({3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 51, 56, 74, 75, 76, 78, 100})
"""Error codes that pass: a leader or a coordinator moves or loads, or does not know a topic yet."""
_CONSUMER = -1
"""The replica id of a client that is not a broker."""
_POLL_S = 0.05


class LeaderUnreachableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """A broker that leads partitions cannot be connected to or does not answer; the message is its address."""


_MOVING = (
    KafkaConnectionError,
    LeaderNotAvailableError,
    LeaderUnreachableError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
)


async def find_begins(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The first offset of each partition. Raises KafkaError, as all functions of this module."""
    return await _find(client, tps, READ_UNCOMMITTED, OffsetResetStrategy.EARLIEST)


async def find_ends(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The offset after the last record of each partition, uncommitted records included."""
    return await _find(client, tps, READ_UNCOMMITTED, OffsetResetStrategy.LATEST)


async def find_stable_ends(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The last stable offset of each partition, which is the end for a read_committed reader."""
    return await _find(client, tps, READ_COMMITTED, OffsetResetStrategy.LATEST)


async def find_leaders(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
    """The partitions by the node that leads them; those without a leader are under -1."""
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for tp in tps:
        await client.add_topic(tp.topic)
        leader = client.cluster.leader_for_partition(tp)
        by_leader[-1 if leader is None else leader].append(tp)
    return by_leader


async def find_topic_id(client: AIOKafkaClient, topic: str) -> str:
    """The id of a topic, which changes when it is deleted and created again; empty if the brokers are too old.

    Raises KafkaError.
    """
    try:
        metadata = await client.send(client.get_random_node(), TopicsRequest([topic]))
    except (NotImplementedError, IncompatibleBrokerVersion):  # before Kafka 2.8
        return ""
    ((code, _, topic_id, *_),) = metadata.topics
    check(code)
    return str(topic_id.hex())


async def retry(client: AIOKafkaClient, ask: Callable[[], Awaitable[T]], timeout_s: float = math.inf) -> T:
    """Repeat a request while leaders or coordinators move. Raises the last error after `timeout_s`."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            return await ask()
        except NotImplementedError as error:
            raise UnsupportedVersionError from error
        except _MOVING:
            if time.monotonic() > until_s:
                raise
        await client.force_metadata_update()
        await asyncio.sleep(_POLL_S)


async def ask_leaders(
    client: AIOKafkaClient,
    tps: Iterable[TopicPartition],
    ask: Callable[[int, list[TopicPartition]], Awaitable[dict[TopicPartition, T]]],
) -> dict[TopicPartition, T]:
    """Ask the leaders of partitions, all at once: `ask` gets a node and the partitions that it leads."""
    by_leader = await find_leaders(client, tps)
    if -1 in by_leader:
        raise LeaderNotAvailableError(by_leader[-1][0])

    async def ask_one(leader: int, led: list[TopicPartition]) -> dict[TopicPartition, T]:
        try:
            return await ask(leader, led)
        except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError) as error:
            raise LeaderUnreachableError(describe_broker(client, leader)) from error

    answers = await asyncio.gather(*(ask_one(leader, led) for leader, led in by_leader.items()))
    return {tp: value for answer in answers for tp, value in answer.items()}


def describe_broker(client: AIOKafkaClient, node: int) -> str:
    """A broker's node id and address, for messages."""
    broker = client.cluster.broker_metadata(node)
    return f"broker {node}" if broker is None else f"broker {node} at {broker.host}:{broker.port}"


def check(code: int) -> None:
    """Raise the error of a code, StaleMetadata for every code that passes."""
    if code in MOVING_CODES:
        raise StaleMetadata(f"error {code}")
    if code:
        raise for_code(code)


def by_topic(tps: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    """The partition numbers of each topic, in the form of requests."""
    topics: dict[str, list[int]] = defaultdict(list)
    for tp in tps:
        topics[tp.topic].append(tp.partition)
    return list(topics.items())


async def _find(client: AIOKafkaClient, tps: Iterable[TopicPartition], isolation: int, timestamp: int) -> Offsets:
    async def ask(node: int, led: list[TopicPartition]) -> Offsets:
        topics = [(topic, [(number, timestamp) for number in numbers]) for topic, numbers in by_topic(led)]
        response = await client.send(node, OffsetRequest(_CONSUMER, isolation, topics))
        offsets: Offsets = {}
        for topic, partitions in response.topics:
            for partition, code, _, offset, *_ in partitions:
                check(code)
                offsets[TopicPartition(topic, partition)] = int(offset)
        return offsets

    return await ask_leaders(client, tps, ask)
