"""Where the partitions of the input end, as their leaders report over separate connections.

The group member's last fetch does not show that a leader is unreachable. And a request to a leader that does not answer
must not delay the member's requests to others.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from msgspec.structs import replace

from consumer.kafka.errors import map_error
from consumer.kafka.markers import find_open
from consumer.kafka.offsets import (
    LeaderUnreachableError,
    Offsets,
    describe_broker,
    find_ends,
    find_leaders,
    find_stable_ends,
    find_topic_id,
)
from consumer.kafka.side_client import REQUEST_MS, SideClient
from consumer.kafka.timeouts import wait
from consumer.settings import Settings
from consumer.worker.ports import ExternalError
from consumer.worker.standstill import LogEnd

_LEADER_S = 5.0
_FIND_S = 8.0
_RETRY_S, _POLL_S = 10.0, 0.5

LogEndOrReason = LogEnd | str
"""The end of a partition, or a sentence on why it is not known."""


async def find_log_ends(settings: Settings, partitions: Sequence[int]) -> Mapping[int, LogEndOrReason]:
    """Where partitions of the input end. Asks again for 10 s while a leader does not answer: it may be moving."""
    log_ends = KafkaLogEnds(settings)
    until_s = time.monotonic() + _RETRY_S
    try:
        while True:
            ends = await log_ends.find(partitions)
            if time.monotonic() > until_s or not any(isinstance(end, str) for end in ends.values()):
                return ends
            await asyncio.sleep(_POLL_S)
    finally:
        await log_ends.stop()


class KafkaLogEnds:
    """Implements `worker.ports.LogEnds`. Connects at the first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = SideClient(settings)
        self._is_stale = False
        """Whether a leader did not answer the last time: another may lead by now."""

    async def find(self, partitions: Sequence[int]) -> Mapping[int, LogEndOrReason]:
        """See `LogEnds.find`."""
        tps = [TopicPartition(self._settings.input_topic, number) for number in partitions]
        try:
            ends = await wait(_FIND_S, self._find(tps))
        except (KafkaError, ExternalError, TimeoutError, OSError) as error:
            ends = dict.fromkeys(tps, _describe(error))
        self._is_stale = any(isinstance(end, str) for end in ends.values())
        return {tp.partition: end for tp, end in ends.items()}

    async def stop(self) -> None:
        """Close the connections, within a bounded time."""
        await self._client.stop()

    async def _find(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, LogEndOrReason]:
        client = await self._client.connect()
        if self._is_stale:
            client.force_metadata_update()  # not awaited, since it may ask the broker that does not answer
        by_leader = await find_leaders(client, tps)
        leaderless = by_leader.pop(-1, [])
        asking = [self._ask(client, leader, led) for leader, led in by_leader.items()]
        topic_id, answers = await asyncio.gather(self._find_topic_id(client), asyncio.gather(*asking))
        ends = {
            tp: end if isinstance(end, str) else replace(end, topic_id=topic_id)
            for answer in answers
            for tp, end in answer.items()
        }
        return ends | dict.fromkeys(leaderless, "no broker leads the partition")

    async def _find_topic_id(self, client: AIOKafkaClient) -> str:
        try:
            return await wait(_LEADER_S, find_topic_id(client, self._settings.input_topic))
        except (KafkaError, TimeoutError, OSError):
            return ""

    async def _ask(
        self, client: AIOKafkaClient, leader: int, tps: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, LogEndOrReason]:
        try:
            ends, stable_ends = await wait(_LEADER_S, self._find_both(client, tps))
        except TimeoutError:
            return dict.fromkeys(tps, _describe(LeaderUnreachableError(describe_broker(client, leader))))
        except (KafkaError, OSError) as error:
            return dict.fromkeys(tps, _describe(error))
        waiting = [tp for tp in tps if stable_ends[tp] < ends[tp]]
        last_records_ms = await self._find_last_records(client, waiting) if waiting else {}
        return {tp: LogEnd(ends[tp], min(stable_ends[tp], ends[tp]), last_records_ms.get(tp)) for tp in tps}

    @staticmethod
    async def _find_both(client: AIOKafkaClient, tps: Sequence[TopicPartition]) -> tuple[Offsets, Offsets]:
        """The ends, then the stable ends. In the other order a record written in between would look undecided."""
        ends = await find_ends(client, tps)
        return ends, await find_stable_ends(client, tps)

    @staticmethod
    async def _find_last_records(client: AIOKafkaClient, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The time of the last record, in epoch milliseconds, of the transaction that each partition waits for.

        A partition whose broker does not answer is left out.
        """
        try:
            open_transactions = await wait(REQUEST_MS / 1_000, find_open(client, tps))
        except (KafkaError, TimeoutError, OSError):
            return {}
        return {
            tp: min(transactions, key=lambda transaction: transaction.start_offset).last_record_ms
            for tp, transactions in open_transactions.items()
            if transactions
        }


def _describe(error: BaseException) -> str:
    return str(error if isinstance(error, ExternalError) else map_error(error, "asking for the end of the partition"))
