"""The markers that end a transaction in its partitions: whether they have arrived, and writing those that never will.

A coordinator answers the end of a transaction before its markers are written. Brokers of Kafka 4.3 and 4.4 skip the
marker of a partition that has no leader at that moment, call the transaction complete and never write it (KAFKA-20734).
What the transaction wrote there *hangs*: read_committed readers stop before it, and the marker of the producer's next
transaction in that partition decides over it, whichever way that ends.

A marker that is missing can be written: a transaction of the same transactional id that holds only the partitions that
hang, and no record, is ended with the verdict of the first.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import (
    KafkaError,
)
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest
from msgspec import Struct, field

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.coordinator import Group
from consumer.adapters.kafka.offsets import (
    ask_leaders,
    by_topic,
    check,
    find_ends,
    find_stable_ends,
    patiently,
)
from consumer.adapters.kafka.requests import (
    DescribeProducersRequest,
    DescribeTransactionRequest,
    StableOffsetsRequest,
)
from consumer.adapters.kafka.unanswered import AnswerLostError
from consumer.runtime.settlement import Verdict

T = TypeVar("T")

_UNSTABLE_OFFSET_COMMIT, _TRANSACTIONAL_ID_NOT_FOUND = 88, 105
_POLL_S = 0.05
_ARRIVAL_S = 1.0
"""How long markers may be on their way before they are looked for."""


class OpenTransaction(Struct, frozen=True):
    """What of a partition's log a producer has not decided over."""

    producer_id: int
    start_offset: int
    last_record_ms: int
    """The timestamp of its last record, in epoch milliseconds."""


Producers = dict[TopicPartition, list[OpenTransaction]]
"""The open transactions of each partition."""


class Written(Struct, frozen=True):
    """What a transaction wrote: where its records end in each partition, and the offsets of the group."""

    ends: Mapping[TopicPartition, int]
    offsets: Mapping[TopicPartition, int]


class Undecided(Struct, frozen=True):
    """Where partitions stop for readers of committed records, and why."""

    stable: Mapping[TopicPartition, int]
    """The last stable offset of each partition."""
    hanging: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Where the records of this producer begin that hang."""
    others: Mapping[TopicPartition, OpenTransaction] = field(default_factory=dict)
    """Open transactions of other producers."""
    has_pending_offsets: bool = False
    """Whether a committed offset hangs."""

    @property
    def hangs(self) -> bool:
        """Whether anything of this producer does."""
        return bool(self.hanging) or self.has_pending_offsets


class MarkersMissingError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The last transaction of a producer has ended, but its markers have not arrived at the places of the message."""


async def confirm(client: AIOKafkaClient, group: Group, written: Written) -> None:
    """Wait until the markers of a commit have arrived. Raises MarkersMissingError and KafkaError; the caller bounds it.

    While a leader or the coordinator of the group moves it is waited for.
    """
    loop = asyncio.get_running_loop()
    since_s: float | None = None
    while True:
        stable, pending = await asyncio.gather(
            patiently(client, lambda: find_stable_ends(client, written.ends)),
            patiently(client, lambda: _undecided_offsets(group, written.offsets)),
        )
        missing = [tp for tp, end in written.ends.items() if stable[tp] < end]
        if not missing and not pending:
            return
        since_s = loop.time() if since_s is None else since_s
        if loop.time() - since_s > _ARRIVAL_S:
            places = [f"{tp.topic}-{tp.partition}" for tp in missing] + ["the group's offsets"] * bool(pending)
            raise MarkersMissingError(", ".join(places))
        await asyncio.sleep(_POLL_S)


async def find_undecided(
    client: AIOKafkaClient,
    group: Group,
    producer_id: int,
    tps: Collection[TopicPartition],
    sources: Collection[TopicPartition],
) -> Undecided:
    """What hangs of a producer whose transaction has ended. Raises KafkaError; the caller bounds it.

    Looks again for a while first, since markers may be on their way. `sources` are the partitions, of one topic, whose
    committed offsets may hang. A partition that its topic does not have is left out: there is nothing in it.
    """
    tps = await _existing(client, tps)
    loop = asyncio.get_running_loop()
    since_s: float | None = None
    while True:
        stable, ends, pending = await asyncio.gather(
            patiently(client, lambda: find_stable_ends(client, tps)),
            patiently(client, lambda: find_ends(client, tps)),
            patiently(client, lambda: _undecided_offsets(group, dict.fromkeys(sources))),
        )
        behind = [tp for tp in tps if stable[tp] < ends[tp]]
        if not behind and not pending:
            return Undecided(stable)
        since_s = loop.time() if since_s is None else since_s
        if loop.time() - since_s > _ARRIVAL_S:
            break
        await asyncio.sleep(_POLL_S)
    hanging, others = {}, {}
    for tp, transactions in (await find_open(client, behind)).items():
        for transaction in transactions:
            if transaction.producer_id == producer_id:
                hanging[tp] = transaction.start_offset
            else:
                others[tp] = transaction
    return Undecided(stable, hanging, others, bool(pending))


async def end_transaction(
    producer: AIOKafkaProducer, tps: Iterable[TopicPartition], group_id: str | None, verdict: Verdict
) -> None:
    """Write the markers that are missing in partitions, and for the offsets of a group unless that is None.

    The producer must have no transaction open. Raises KafkaError. An answer that is lost leaves the producer of no use:
    a late EndTxn would end its next transaction.
    """
    client, manager = producer.client, producer._txn_manager  # noqa: SLF001 - nothing public gives it
    identity = (manager.transactional_id, manager.producer_id, manager.producer_epoch)
    topics = by_topic(tps)

    async def ask(request: Any) -> None:
        node = await coordinator.find(client, CoordinationType.TRANSACTION, manager.transactional_id)
        answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        for code in _codes(answer):
            check(code)

    try:
        if topics:
            await patiently(client, lambda: ask(AddPartitionsToTxnRequest(*identity, topics)))
        if group_id is not None:
            await patiently(client, lambda: ask(AddOffsetsToTxnRequest(*identity, group_id)))
        await patiently(client, lambda: ask(EndTxnRequest(*identity, verdict == "commit")))
    except AnswerLostError as error:
        raise KafkaError(f"no answer to {error}") from error


async def find_open(client: AIOKafkaClient, tps: Collection[TopicPartition]) -> Producers:
    """The open transactions of each partition. Needs Read on the topics. Raises KafkaError; the caller bounds it."""

    async def ask(node: int, some: list[TopicPartition]) -> Producers:
        answer = await client.send(node, DescribeProducersRequest(by_topic(some)))
        found: Producers = {}
        for topic, partitions, _ in answer.topics:
            for partition, code, _, producers, _ in partitions:
                check(code)
                found[TopicPartition(topic, partition)] = [
                    OpenTransaction(number, start, last_ms)
                    for number, _, _, last_ms, _, start, _ in producers
                    if start >= 0
                ]
        return found

    return await patiently(client, lambda: ask_leaders(client, tps, ask))


async def find_verdict(client: AIOKafkaClient, transactional_id: str) -> Verdict | None:
    """How the last transaction of a transactional id ended; None where its coordinator cannot say. Raises KafkaError.

    A producer that starts makes the coordinator forget.
    """

    async def ask() -> Any:
        node = await coordinator.find(client, CoordinationType.TRANSACTION, transactional_id)
        ((code, _, state, *_),) = (await client.send(node, DescribeTransactionRequest(transactional_id))).transactions
        if code == _TRANSACTIONAL_ID_NOT_FOUND:
            return None
        check(code)
        return state

    verdicts: dict[str | None, Verdict] = {"CompleteCommit": "commit", "CompleteAbort": "abort"}
    return verdicts.get(await patiently(client, ask))


async def _undecided_offsets(group: Group, offsets: Mapping[TopicPartition, int | None]) -> list[TopicPartition]:
    """Which committed offsets are undecided, or not yet the expected ones where some are."""
    if not offsets:
        return []
    ((topic, partitions),) = by_topic(offsets)
    answer = await group.ask(StableOffsetsRequest(group.group_id, topic, partitions))
    for code in coordinator.error_codes(answer) - {_UNSTABLE_OFFSET_COMMIT}:
        check(code)
    found = []
    for name, some, _ in answer.topics:
        for partition, offset, _, _, code, _ in some:
            expected = offsets[TopicPartition(name, partition)]
            if code or (expected is not None and offset != expected):
                found.append(TopicPartition(name, partition))
    return found


async def _existing(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Those that their topics have, as far as it is known how many that are."""
    found = []
    for tp in tps:
        await client.add_topic(tp.topic)
        partitions = client.cluster.partitions_for_topic(tp.topic)
        if not partitions or tp.partition in partitions:
            found.append(tp)
    return found


def _codes(answer: Any) -> set[int]:
    """Of an answer to a request of a transaction."""
    if hasattr(answer, "errors"):
        return {code for _, partitions in answer.errors for _, code in partitions}
    return {answer.error_code}
