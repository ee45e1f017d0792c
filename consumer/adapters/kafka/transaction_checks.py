"""Transactions that have been open in the four topics for longer than any may: what is written after them waits.

A coordinator ends a transaction at its timeout. One that is open for longer hangs: its end was lost (KAFKA-20734), or
written by a producer that the coordinator had forgotten.
"""

import time
from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from msgspec import Struct

from consumer.adapters.kafka import markers
from consumer.adapters.kafka.finding import Finding
from consumer.adapters.kafka.limits import TRANSACTION_MAX
from consumer.runtime.kafka_tools import abort_command
from consumer.runtime.settings import Settings

_BROKERS_MAX_MS: Final = 900_000
"""The brokers' own default of how long a transaction may last."""
_SHOWN_MAX: Final = 5


class OpenTransaction(Struct, frozen=True):
    """A producer's undecided records in a partition."""

    topic: str
    partition: int
    producer_id: int
    start_offset: int
    age_s: float
    """Since the timestamp of its last record."""


async def find(client: AIOKafkaClient, settings: Settings, partitions: Mapping[str, int]) -> list[OpenTransaction]:
    """All open transactions of the topics that the service may read, by their partition counts. Raises KafkaError.

    It may wait for as long as a partition has no leader: the caller bounds it.
    """
    is_atomic = settings.delivery == "exactly_once"  # only then it may read all of its outputs
    readable = partitions if is_atomic else {settings.input_topic, settings.state_topic} & partitions.keys()
    tps = [TopicPartition(topic, number) for topic in readable for number in range(partitions[topic])]
    now_ms = time.time_ns() // 1_000_000
    return [
        OpenTransaction(tp.topic, tp.partition, producer_id, start, max(0, now_ms - last_ms) / 1_000)
        for tp, producers in (await markers.find_open(client, tps)).items()
        for producer_id, start, last_ms in producers
    ]


def checks(settings: Settings, limits: Mapping[str, str], found: list[OpenTransaction]) -> list[Finding]:
    """A warning for each transaction that is older than it may be; `limits` are those of the brokers, if told.

    This service's own, in its outputs, last CC_TRANSACTION_TIMEOUT_MS at most, others what the brokers allow.
    """
    others_ms = int(limits.get(TRANSACTION_MAX, _BROKERS_MAX_MS))
    hanging = [
        transaction
        for transaction in found
        if transaction.age_s * 1_000
        > (others_ms if transaction.topic == settings.input_topic else settings.transaction_timeout_ms)
    ]
    if not hanging:
        return [Finding("transactions", "pass", "none is open for longer than it may be")]
    findings = [_hanging(settings, transaction) for transaction in hanging[:_SHOWN_MAX]]
    if len(hanging) > _SHOWN_MAX:
        findings.append(Finding("transactions", "warn", f"{len(hanging) - _SHOWN_MAX} more are open for too long"))
    return findings


def _hanging(settings: Settings, transaction: OpenTransaction) -> Finding:
    topic, partition, start = transaction.topic, transaction.partition, transaction.start_offset
    found = (
        f"partition {partition} of topic {topic!r}: a transaction of producer {transaction.producer_id} is open since "
        f"offset {start}, its last record is {transaction.age_s:.0f} s old, and what follows waits for its end"
    )
    command = f"to abort it, run {abort_command(settings, topic, partition, start)}"
    if topic == settings.input_topic:
        return Finding("transactions", "warn", found, command)
    return Finding("transactions", "warn", found, f"`run` ends it if it is its own; if it stays, {command}")
