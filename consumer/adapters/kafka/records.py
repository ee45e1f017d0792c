"""Records by aiokafka: a consumer of them without a group, where they lie, and how the core sees them."""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.partitioner import murmur2
from msgspec import Struct

from consumer.adapters.kafka.bounds import stopped
from consumer.adapters.kafka.connection import connection_arguments
from consumer.core.record import Record
from consumer.runtime.settings import Settings

_STOP_S = 5.0

_POSITIVE = 0x7FFFFFFF  # Kafka's partitioner drops the sign of the hash


class Span(Struct, frozen=True):
    """Offsets of a partition: from `begin` up to, and without, `end`."""

    begin: int
    end: int


def standalone_consumer(settings: Settings, **more: Any) -> AIOKafkaConsumer:
    """A consumer that joins no group and commits nothing. It sees what is committed, unless `more` says otherwise."""
    usual = {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": settings.partition_fetch_bytes_max,
    }
    return AIOKafkaConsumer(**{**usual, **more}, **connection_arguments(settings))


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer go, within a bounded time. Never raises."""
    await stopped(consumer.stop(), consumer._client, _STOP_S)  # noqa: SLF001 - nothing public gives it


def record_of(fetched: Any) -> Record:
    """A ConsumerRecord of aiokafka as the core sees it."""
    return Record(
        fetched.topic,
        fetched.partition,
        fetched.offset,
        fetched.timestamp,
        fetched.key,
        fetched.value,
        fetched.headers,
    )


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of so many in which Kafka's own partitioner puts a key."""
    return int(murmur2(key) & _POSITIVE) % partitions
