"""Records between aiokafka and the core: how they come, where they lie, and which partition a key belongs to."""

from typing import Any

from aiokafka.partitioner import murmur2
from msgspec import Struct

from consumer.core.record import Record

_POSITIVE = 0x7FFFFFFF  # Kafka's partitioner drops the sign of the hash


class Span(Struct, frozen=True):
    """Offsets of a partition: from `begin` up to, and without, `end`."""

    begin: int
    end: int


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
