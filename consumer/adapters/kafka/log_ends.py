"""Where the partitions of the input end, asked of their leaders over connections of its own.

The last fetch of the group member does not show that a leader is unreachable; and a request to a leader that does not
answer must not hold up what the member asks others.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from msgspec.structs import replace

from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.connection import connection_arguments
from consumer.adapters.kafka.faults import world_error
from consumer.adapters.kafka.markers import find_open
from consumer.adapters.kafka.offsets import (
    LeaderUnreachableError,
    Offsets,
    address_of,
    find_ends,
    find_leaders,
    find_stable_ends,
    find_topic_id,
)
from consumer.runtime.ports import WorldError
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import LogEnd

_REQUEST_MS = 4_000
_LEADER_S = 5.0
_LOOK_S = 8.0
_AGAIN_S, _POLL_S = 10.0, 0.5
_STOP_S = 5.0

Found = LogEnd | str


async def find_log_ends(settings: Settings, partitions: Sequence[int]) -> Mapping[int, Found]:
    """Where partitions of the input end, asked again for a while where a leader does not answer: it may just move."""
    log_ends = KafkaLogEnds(settings)
    until_s = time.monotonic() + _AGAIN_S
    try:
        while True:
            found = await log_ends.find(partitions)
            if time.monotonic() > until_s or not any(isinstance(end, str) for end in found.values()):
                return found
            await asyncio.sleep(_POLL_S)
    finally:
        await log_ends.stop()


class KafkaLogEnds:
    """Implements `runtime.ports.LogEnds`. Connects when it is asked first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AIOKafkaClient | None = None
        self._is_stale = False
        """Whether a leader did not answer: another may lead by now."""

    async def find(self, partitions: Sequence[int]) -> Mapping[int, Found]:
        """See `LogEnds.find`."""
        tps = [TopicPartition(self._settings.input_topic, number) for number in partitions]
        try:
            found = await within(_LOOK_S, self._find(tps))
        except (KafkaError, WorldError, TimeoutError, OSError) as error:
            found = dict.fromkeys(tps, _sentence(error))
        self._is_stale = any(isinstance(end, str) for end in found.values())
        return {tp.partition: end for tp, end in found.items()}

    async def stop(self) -> None:
        """Close the connections, within a bounded time."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await within(_STOP_S, client.close())

    async def _find(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Found]:
        client = await self._connected()
        if self._is_stale:
            client.force_metadata_update()  # not waited for: it may ask the broker that does not answer
        by_leader = await find_leaders(client, tps)
        leaderless = by_leader.pop(-1, [])
        asking = [self._ask(client, leader, some) for leader, some in by_leader.items()]
        topic_id, answers = await asyncio.gather(self._find_topic_id(client), asyncio.gather(*asking))
        found = {
            tp: end if isinstance(end, str) else replace(end, topic_id=topic_id)
            for answer in answers
            for tp, end in answer.items()
        }
        return found | dict.fromkeys(leaderless, "no broker leads the partition")

    async def _find_topic_id(self, client: AIOKafkaClient) -> str:
        try:
            return await within(_LEADER_S, find_topic_id(client, self._settings.input_topic))
        except (KafkaError, TimeoutError, OSError):
            return ""

    async def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            arguments = connection_arguments(self._settings) | {"request_timeout_ms": _REQUEST_MS}
            client = AIOKafkaClient(**arguments)
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
            self._client = client
        return self._client

    async def _ask(
        self, client: AIOKafkaClient, leader: int, tps: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Found]:
        try:
            ends, stable_ends = await within(_LEADER_S, self._find_both(client, tps))
        except TimeoutError:
            return dict.fromkeys(tps, _sentence(LeaderUnreachableError(address_of(client, leader))))
        except (KafkaError, OSError) as error:
            return dict.fromkeys(tps, _sentence(error))
        waiting = [tp for tp in tps if stable_ends[tp] < ends[tp]]
        since_ms = await self._open_since(client, waiting) if waiting else {}
        return {tp: LogEnd(ends[tp], min(stable_ends[tp], ends[tp]), since_ms.get(tp)) for tp in tps}

    @staticmethod
    async def _find_both(client: AIOKafkaClient, tps: Sequence[TopicPartition]) -> tuple[Offsets, Offsets]:
        """The ends and then the stable ends: in the other order what is written in between would look undecided."""
        ends = await find_ends(client, tps)
        return ends, await find_stable_ends(client, tps)

    @staticmethod
    async def _open_since(client: AIOKafkaClient, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The newest record of the transaction that each partition waits for, as far as brokers say."""
        try:
            transactions = await within(_REQUEST_MS / 1_000, find_open(client, tps))
        except (KafkaError, TimeoutError, OSError):
            return {}
        first = {tp: min(some, key=lambda one: one.start_offset) for tp, some in transactions.items() if some}
        return {tp: transaction.last_record_ms for tp, transaction in first.items()}


def _sentence(error: BaseException) -> str:
    return str(error if isinstance(error, WorldError) else world_error(error, "asking for the end of the partition"))
