"""The offsets at which partitions begin and end, asked of the brokers that lead them.

aiokafka's own calls ask as their consumer reads, wait for leaders as long as they may, and do not name the one that
does not answer.
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

from consumer.adapters.kafka.requests import TopicsRequest

T = TypeVar("T")
Offsets = dict[TopicPartition, int]

MOVING_CODES: Final = frozenset({3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 51, 56, 74, 75, 76, 78, 100})
"""Errors of brokers that pass: a leader or a coordinator moves or loads, or has not heard of a topic yet."""
_CONSUMER = -1  # of no replica
_POLL_S = 0.05


class LeaderUnreachableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """A broker that leads partitions cannot be connected to or does not answer; the message has its address."""


_MOVING = (
    KafkaConnectionError,
    LeaderNotAvailableError,
    LeaderUnreachableError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
)


async def find_begins(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The first offset of each partition. Raises KafkaError, as all do here."""
    return await _find(client, tps, READ_UNCOMMITTED, OffsetResetStrategy.EARLIEST)


async def find_ends(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The end of each partition, with what is not committed."""
    return await _find(client, tps, READ_UNCOMMITTED, OffsetResetStrategy.LATEST)


async def find_stable_ends(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> Offsets:
    """The last stable offset of each partition: the end for readers of committed records."""
    return await _find(client, tps, READ_COMMITTED, OffsetResetStrategy.LATEST)


async def find_leaders(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
    """The partitions that each broker leads, those without a leader under -1."""
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
        answer = await client.send(client.get_random_node(), TopicsRequest([topic]))
    except (NotImplementedError, IncompatibleBrokerVersion):  # before Kafka 2.8
        return ""
    ((code, _, topic_id, *_),) = answer.topics
    check(code)
    return str(topic_id.hex())


async def patiently(client: AIOKafkaClient, ask: Callable[[], Awaitable[T]], seconds: float = math.inf) -> T:
    """An answer, asked for again while brokers or leaders move; past the time the last error is raised."""
    until_s = time.monotonic() + seconds
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
    """Ask the leader of each partition, all leaders at once."""
    by_leader = await find_leaders(client, tps)
    if -1 in by_leader:
        raise LeaderNotAvailableError(by_leader[-1][0])

    async def ask_one(leader: int, some: list[TopicPartition]) -> dict[TopicPartition, T]:
        try:
            return await ask(leader, some)
        except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError) as error:
            raise LeaderUnreachableError(address_of(client, leader)) from error

    answers = await asyncio.gather(*(ask_one(leader, some) for leader, some in by_leader.items()))
    return {tp: found for answer in answers for tp, found in answer.items()}


def address_of(client: AIOKafkaClient, node: int) -> str:
    """A broker as messages name it."""
    broker = client.cluster.broker_metadata(node)
    return f"broker {node}" if broker is None else f"broker {node} at {broker.host}:{broker.port}"


def check(code: int) -> None:
    """Raise what an error code stands for: StaleMetadata for all that pass."""
    if code in MOVING_CODES:
        raise StaleMetadata(f"error {code}")
    if code:
        raise for_code(code)


def by_topic(tps: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    """The partitions of each topic, as requests have them."""
    topics: dict[str, list[int]] = defaultdict(list)
    for tp in tps:
        topics[tp.topic].append(tp.partition)
    return list(topics.items())


async def _find(client: AIOKafkaClient, tps: Iterable[TopicPartition], isolation: int, at: int) -> Offsets:
    async def ask(node: int, some: list[TopicPartition]) -> Offsets:
        asked = [(topic, [(number, at) for number in numbers]) for topic, numbers in by_topic(some)]
        answer = await client.send(node, OffsetRequest(_CONSUMER, isolation, asked))
        found: Offsets = {}
        for topic, partitions in answer.topics:
            for partition, code, _, offset, *_ in partitions:
                check(code)
                found[TopicPartition(topic, partition)] = int(offset)
        return found

    return await ask_leaders(client, tps, ask)
