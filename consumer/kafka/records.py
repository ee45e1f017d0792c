"""Records by aiokafka: how the core sees them, where they are, and a consumer without a group to read them."""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.partitioner import murmur2
from msgspec import Struct

from consumer.core.framing import spell_like
from consumer.core.record import Record
from consumer.kafka.connection import connection_arguments
from consumer.kafka.patches.internals import client_of
from consumer.kafka.timeouts import stop_client
from consumer.settings import Settings

_STOP_S = 5.0

_POSITIVE = 0x7FFFFFFF  # Kafka's partitioner drops the sign of the hash


class OffsetRange(Struct, frozen=True):
    """The offsets of a partition from `begin` to before `end`."""

    begin: int
    end: int


def standalone_consumer(settings: Settings, **more: Any) -> AIOKafkaConsumer:
    """A consumer that joins no group and commits nothing. It reads committed records, unless `more` changes that."""
    defaults = {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": settings.tuning.partition_fetch_bytes_max,
    }
    return AIOKafkaConsumer(**{**defaults, **more}, **connection_arguments(settings))


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer within a bounded time. Never raises."""
    await stop_client(consumer.stop(), client_of(consumer), _STOP_S)


def to_record(fetched: Any) -> Record:
    """Turn a ConsumerRecord of aiokafka into one of the core's."""
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
    """The partition that Kafka's own partitioner chooses for a key, of so many."""
    return int(murmur2(key) & _POSITIVE) % partitions


def find_candidates(conversation_id: str, like: bytes | None, partitions: int) -> list[int]:
    """The partitions that Kafka's own partitioner chooses for a conversation, of so many, the likely one first.

    That of the key which the relay writes if it spells ids as in the key `like`, and that of the id itself.
    """
    plain = conversation_id.encode("utf-8", "surrogateescape")
    keys = [plain] if like is None else [spell_like(like, conversation_id), plain]
    return list(dict.fromkeys(partition_of(key, partitions) for key in keys))
