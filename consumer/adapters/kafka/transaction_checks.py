"""Transactions that have been open in the four topics for longer than any may: what is written after them waits.

A coordinator ends a transaction at its timeout. One that is open for longer hangs: its end was lost (KAFKA-20734), or
written by a producer that the coordinator had forgotten.
"""

from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from consumer.adapters.kafka.finding import Finding
from consumer.adapters.kafka.limits import TRANSACTION_MAX
from consumer.adapters.kafka.markers import OpenTransaction, Producers, find_open
from consumer.runtime.kafka_tools import abort_command
from consumer.runtime.settings import Settings

_BROKERS_MAX_MS: Final = 900_000
"""The brokers' own default of how long a transaction may last."""
_SHOWN_MAX: Final = 5


async def find(client: AIOKafkaClient, settings: Settings, partitions: Mapping[str, int]) -> Producers:
    """The open transactions of the topics that the service may read, by their partition counts. Raises KafkaError.

    It may wait for as long as a partition has no leader: the caller bounds it.
    """
    is_atomic = settings.delivery == "exactly_once"  # only then it may read all of its outputs
    readable = partitions if is_atomic else {settings.input_topic, settings.state_topic} & partitions.keys()
    return await find_open(
        client, [TopicPartition(topic, number) for topic in readable for number in range(partitions[topic])]
    )


def checks(settings: Settings, limits: Mapping[str, str], found: Producers, now_ms: int) -> list[Finding]:
    """A warning for each transaction that is older than it may be; `limits` are those that a broker gives, if any.

    This service's own, in its outputs, last CC_TRANSACTION_TIMEOUT_MS at most, others what the brokers allow.
    """
    others_ms = int(limits.get(TRANSACTION_MAX, _BROKERS_MAX_MS))
    findings = [
        _hanging(settings, tp, transaction, age_ms)
        for tp, transactions in found.items()
        for transaction in transactions
        if (age_ms := now_ms - transaction.last_record_ms)
        > (others_ms if tp.topic == settings.input_topic else settings.transaction_timeout_ms)
    ]
    if len(findings) > _SHOWN_MAX:
        more = Finding("transactions", "warn", f"{len(findings) - _SHOWN_MAX} more are open for too long")
        return [*findings[:_SHOWN_MAX], more]
    return findings or [Finding("transactions", "pass", "none is open for longer than it may be")]


def _hanging(settings: Settings, tp: TopicPartition, transaction: OpenTransaction, age_ms: int) -> Finding:
    start = transaction.start_offset
    found = (
        f"partition {tp.partition} of topic {tp.topic!r}: a transaction of producer {transaction.producer_id} is open "
        f"since offset {start}, its last record is {age_ms / 1_000:.0f} s old, and what follows waits for its end"
    )
    command = f"to abort it, run {abort_command(settings, tp.topic, tp.partition, start)}"
    if tp.topic != settings.input_topic:
        command = f"`run` ends it if it is its own; if it stays, {command}"
    return Finding("transactions", "warn", found, command)
