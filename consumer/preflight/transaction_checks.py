"""Transactions that have been open in the four topics for too long: read_committed readers stop before them.

A coordinator ends a transaction at its timeout. One that is open for longer hangs: its end was lost (KAFKA-20734), or
the coordinator had forgotten the producer that wrote it.
"""

from collections.abc import Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from consumer.kafka.markers import OpenTransaction, Producers, find_open
from consumer.kafka_commands import abort_command
from consumer.preflight.broker_limits import TRANSACTION_MAX
from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings

_BROKERS_MAX_MS: Final = 900_000
"""The default of `transaction.max.timeout.ms`."""
_SHOWN_MAX: Final = 5


async def find(client: AIOKafkaClient, settings: Settings, partitions: Mapping[str, int]) -> Producers:
    """The open transactions in those of the topics that the service may read, given their partition counts.

    Raises KafkaError; waits while a partition has no leader: the caller bounds it.
    """
    is_atomic = settings.delivery == "exactly_once"  # without it the service may not read all its outputs
    readable = partitions if is_atomic else {settings.input_topic, settings.state_topic} & partitions.keys()
    return await find_open(
        client, [TopicPartition(topic, number) for topic in readable for number in range(partitions[topic])]
    )


def checks(settings: Settings, limits: Mapping[str, str], transactions: Producers, now_ms: int) -> list[CheckResult]:
    """A warning for each transaction that is older than its timeout; `limits` are those that a broker reports.

    The outputs are written by this service, with its own transaction timeout; the input by others, with any that the
    brokers allow.
    """
    others_ms = int(limits.get(TRANSACTION_MAX, _BROKERS_MAX_MS))
    results = [
        _warn(settings, tp, transaction, age_ms)
        for tp, in_partition in transactions.items()
        for transaction in in_partition
        if (age_ms := now_ms - transaction.last_record_ms)
        > (others_ms if tp.topic == settings.input_topic else settings.transaction_timeout_ms)
    ]
    if len(results) > _SHOWN_MAX:
        more = CheckResult("transactions", "warn", f"{len(results) - _SHOWN_MAX} more are open for too long")
        return [*results[:_SHOWN_MAX], more]
    return results or [CheckResult("transactions", "pass", "none is open for longer than it may be")]


def _warn(settings: Settings, tp: TopicPartition, transaction: OpenTransaction, age_ms: int) -> CheckResult:
    start = transaction.start_offset
    message = (
        f"partition {tp.partition} of topic {tp.topic!r}: a transaction of producer {transaction.producer_id} is open "
        f"since offset {start}, its last record is {age_ms / 1_000:.0f} s old, and what follows waits for its end"
    )
    command = f"to abort it, run {abort_command(settings, tp.topic, tp.partition, start)}"
    if tp.topic != settings.input_topic:
        command = f"`run` ends it if it is its own; if it stays, {command}"
    return CheckResult("transactions", "warn", message, command)
