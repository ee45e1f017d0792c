"""The markers that end a transaction in its partitions: wait for them, find those that are missing, write them again.

A coordinator reports the end of a transaction before its markers are written. Brokers of Kafka 4.3 and 4.4 skip the
marker of a partition that has no leader at that moment, report the transaction as complete, and never write the marker
(KAFKA-20734). The records of the transaction there *hang*: read_committed readers stop before them, and the marker of
the producer's next transaction in that partition commits or aborts them, depending on how that one ends.

A missing marker can be written. The same transactional id begins a transaction that adds only the partitions that
hang, writes no record, and ends it as the first one ended.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest
from msgspec import Struct, field

from consumer.kafka import coordinator
from consumer.kafka.coordinator import Group
from consumer.kafka.offsets import (
    ask_leaders,
    by_topic,
    check,
    find_ends,
    find_stable_ends,
    retry,
)
from consumer.kafka.patches.internals import identify_producer
from consumer.kafka.patches.lost_responses import ResponseLostError
from consumer.kafka.protocol import (
    DescribeProducersRequest,
    DescribeTransactionRequest,
    StableOffsetsRequest,
)
from consumer.worker.settlement import Verdict

_UNSTABLE_OFFSET_COMMIT, _TRANSACTIONAL_ID_NOT_FOUND = 88, 105
_POLL_S = 0.05
_ARRIVAL_S = 1.0
"""How long a marker may be on its way before it counts as missing."""


class OpenTransaction(Struct, frozen=True):
    """The records of a producer in a partition that are neither committed nor aborted."""

    producer_id: int
    start_offset: int
    last_record_ms: int
    """The timestamp of its last record, in epoch milliseconds."""


Producers = dict[TopicPartition, list[OpenTransaction]]
"""The open transactions of each partition."""


class Written(Struct, frozen=True):
    """What a transaction wrote."""

    ends: Mapping[TopicPartition, int]
    """The offset after its last record in each output partition."""
    offsets: Mapping[TopicPartition, int]
    """The group's new offset of each input partition."""


class Undecided(Struct, frozen=True):
    """Where partitions end for read_committed readers, and which transactions hold them up."""

    stable: Mapping[TopicPartition, int]
    """The last stable offset of each partition."""
    hanging: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The first offset that hangs of this producer's last transaction."""
    others: Mapping[TopicPartition, OpenTransaction] = field(default_factory=dict)
    """An open transaction of another producer."""
    has_pending_offsets: bool = False
    """Whether an offset of the group hangs."""

    @property
    def hangs(self) -> bool:
        """Whether anything of this producer's last transaction hangs."""
        return bool(self.hanging) or self.has_pending_offsets


class MarkersMissingError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The last transaction of a producer has ended, but markers are missing; the message lists where."""


async def confirm(client: AIOKafkaClient, group: Group, written: Written) -> None:
    """Wait until the markers of a commit have arrived. Raises MarkersMissingError and KafkaError; the caller bounds it.

    Waits while a leader or the coordinator of the group moves.
    """
    loop = asyncio.get_running_loop()
    since_s: float | None = None
    while True:
        stable, pending = await asyncio.gather(
            retry(client, lambda: find_stable_ends(client, written.ends)),
            retry(client, lambda: _find_undecided_offsets(group, written.offsets)),
        )
        missing = [tp for tp, end in written.ends.items() if stable[tp] < end]
        if not missing and not pending:
            return
        since_s = loop.time() if since_s is None else since_s
        if loop.time() - since_s > _ARRIVAL_S:
            outputs = [f"{tp.topic}-{tp.partition}" for tp in missing] + ["the group's offsets"] * bool(pending)
            raise MarkersMissingError(", ".join(outputs))
        await asyncio.sleep(_POLL_S)


async def find_undecided(
    client: AIOKafkaClient,
    group: Group,
    producer_id: int,
    tps: Collection[TopicPartition],
    sources: Collection[TopicPartition],
) -> Undecided:
    """What hangs in `tps` of a producer whose transaction has ended. Raises KafkaError; the caller bounds it.

    Markers may still be on their way, so what seems to hang is looked at again for a while. `sources` are the
    partitions, of one topic, whose committed offsets may hang. A partition that does not exist is left out.
    """
    tps = await _drop_missing(client, tps)
    loop = asyncio.get_running_loop()
    since_s: float | None = None
    while True:
        stable, ends, pending = await asyncio.gather(
            retry(client, lambda: find_stable_ends(client, tps)),
            retry(client, lambda: find_ends(client, tps)),
            retry(client, lambda: _find_undecided_offsets(group, dict.fromkeys(sources))),
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
    """Write missing markers to partitions, and to the offsets of a group unless that is None.

    The producer must have no open transaction. Raises KafkaError. If a response is lost, the producer must not be used
    any more: a late EndTxn would end its next transaction.
    """
    client, identity = producer.client, identify_producer(producer)
    ids = (identity.transactional_id, identity.producer_id, identity.epoch)
    topics = by_topic(tps)

    async def ask(request: Any) -> None:
        node = await coordinator.find(client, CoordinationType.TRANSACTION, identity.transactional_id)
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        for code in _list_codes(response):
            check(code)

    try:
        if topics:
            await retry(client, lambda: ask(AddPartitionsToTxnRequest(*ids, topics)))
        if group_id is not None:
            await retry(client, lambda: ask(AddOffsetsToTxnRequest(*ids, group_id)))
        await retry(client, lambda: ask(EndTxnRequest(*ids, verdict == "commit")))
    except ResponseLostError as error:
        raise KafkaError(f"no response to {error}") from error


async def find_open(client: AIOKafkaClient, tps: Collection[TopicPartition]) -> Producers:
    """The open transactions of each partition. Needs Read on the topics. Raises KafkaError; the caller bounds it."""

    async def ask(node: int, led: list[TopicPartition]) -> Producers:
        response = await client.send(node, DescribeProducersRequest(by_topic(led)))
        transactions: Producers = {}
        for topic, partitions, _ in response.topics:
            for partition, code, _, producers, _ in partitions:
                check(code)
                transactions[TopicPartition(topic, partition)] = [
                    OpenTransaction(producer_id, start, last_ms)
                    for producer_id, _, _, last_ms, _, start, _ in producers
                    if start >= 0
                ]
        return transactions

    return await retry(client, lambda: ask_leaders(client, tps, ask))


async def find_verdict(client: AIOKafkaClient, transactional_id: str) -> Verdict | None:
    """How the last transaction of a transactional id ended; None if its coordinator does not know. Raises KafkaError.

    To be asked before a new producer starts, which makes the coordinator forget.
    """

    async def ask() -> Any:
        node = await coordinator.find(client, CoordinationType.TRANSACTION, transactional_id)
        response = await client.send(node, DescribeTransactionRequest(transactional_id))
        ((code, _, state, *_),) = response.transactions
        if code == _TRANSACTIONAL_ID_NOT_FOUND:
            return None
        check(code)
        return state

    verdicts: dict[str | None, Verdict] = {"CompleteCommit": "commit", "CompleteAbort": "abort"}
    return verdicts.get(await retry(client, ask))


async def _find_undecided_offsets(group: Group, offsets: Mapping[TopicPartition, int | None]) -> list[TopicPartition]:
    """The partitions whose committed offset hangs, or is not the given one; None gives no offset to compare with."""
    if not offsets:
        return []
    ((topic, partitions),) = by_topic(offsets)
    response = await group.ask(StableOffsetsRequest(group.group_id, topic, partitions))
    for code in coordinator.error_codes(response) - {_UNSTABLE_OFFSET_COMMIT}:
        check(code)
    undecided = []
    for name, fields, _ in response.topics:
        for partition, offset, _, _, code, _ in fields:
            expected = offsets[TopicPartition(name, partition)]
            if code or (expected is not None and offset != expected):
                undecided.append(TopicPartition(name, partition))
    return undecided


async def _drop_missing(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> list[TopicPartition]:
    """The partitions without those that their topic does not have. A topic that is not known keeps all."""
    existing = []
    for tp in tps:
        await client.add_topic(tp.topic)
        partitions = client.cluster.partitions_for_topic(tp.topic)
        if not partitions or tp.partition in partitions:
            existing.append(tp)
    return existing


def _list_codes(response: Any) -> set[int]:
    """The error codes of a response to AddPartitionsToTxn, AddOffsetsToTxn or EndTxn."""
    if hasattr(response, "errors"):
        return {code for _, partitions in response.errors for _, code in partitions}
    return {response.error_code}
