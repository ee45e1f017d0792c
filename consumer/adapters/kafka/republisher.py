"""Writing records to topics once more, each transaction as a whole, by aiokafka.

After any failure the producer is of no use, so that the command ends and is started again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError

from consumer.adapters.kafka.batches import append, broken_by, producer, send
from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import start
from consumer.adapters.kafka.faults import world_error
from consumer.adapters.kafka.records import partition_of
from consumer.runtime.ports import Fenced, Unreachable
from consumer.runtime.republish import NO_TIMESTAMP, Copy
from consumer.runtime.settings import Settings

_STOP_S = 5.0
_REQUEST_BYTES_MAX = 16 * 1_048_576


class Republisher:
    """A transactional producer, as an async context manager. Raises WorldError from every method but leaving.

    Entering takes the transactional id over: another holder is fenced and its open transaction aborted. `doing` is
    what the command is called in messages, and `partitions` how many each topic has.
    """

    def __init__(self, settings: Settings, transactional_id: str, doing: str, partitions: Mapping[str, int]) -> None:
        self._settings = settings
        self._doing = doing
        self._partitions = partitions
        self._in_transaction = False
        self._producer = producer(
            settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_request_size=max(_REQUEST_BYTES_MAX, 2 * settings.dead_letter_bytes_max),
        )

    async def __aenter__(self) -> Self:
        within_s = self._settings.commit_timeout_s
        try:
            await start(self._producer.start(), self._settings, within_s, self._stop, "starting the producer")
        except Fenced as error:
            raise self._taken_over() from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._in_transaction:  # readers wait for its end, and need not wait for it to time out
            # Where that fails, fenced or cut off, whoever starts next aborts it, or the broker in time.
            with contextlib.suppress(KafkaError, IllegalOperation, TimeoutError, AssertionError):
                await within(_STOP_S, self._producer.abort_transaction())
        await self._stop()

    async def publish(
        self, copies: Sequence[Copy], offsets: Mapping[TopicPartition, int] | None = None, group_id: str = ""
    ) -> None:
        """Write all copies, in their order per partition, and a group's offsets; all of it or nothing."""
        self._in_transaction = True
        await self._bounded(self._transact(copies, offsets, group_id), "writing records")
        self._in_transaction = False

    async def _transact(
        self, copies: Sequence[Copy], offsets: Mapping[TopicPartition, int] | None, group_id: str
    ) -> None:
        await self._producer.begin_transaction()
        try:
            await asyncio.gather(*await self._send(copies))
            if offsets:
                await self._producer.send_offsets_to_transaction(dict(offsets), group_id)
        except (KafkaError, IllegalOperation) as error:
            raise broken_by(self._producer) or error from error
        await self._producer.commit_transaction()

    async def _send(self, copies: Sequence[Copy]) -> list[Awaitable[Any]]:
        batches: dict[tuple[str, int], Any] = {}
        sent: list[Awaitable[Any]] = []
        for copy in copies:
            place = (copy.topic, self._partition(copy))
            batch = batches.get(place)
            if batch is None or not _append(batch, copy):
                if batch is not None:
                    sent.append(await send(self._producer, batch, *place))
                batch = batches[place] = self._producer.create_batch()
                _append(batch, copy)
        sent += [await send(self._producer, batch, *place) for place, batch in batches.items()]
        return sent

    def _partition(self, copy: Copy) -> int:
        count = self._partitions[copy.topic]
        if copy.partition is not None:
            return copy.partition % count
        assert copy.key is not None
        return partition_of(copy.key, count)

    async def _stop(self) -> None:
        await stopped(self._producer.stop(), self._producer.client, _STOP_S)

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await within(self._settings.commit_timeout_s, doing)
        except (KafkaError, IllegalOperation, TimeoutError, OSError) as error:
            told = world_error(error, what)
            raise (self._taken_over() if isinstance(told, Fenced) else told) from error
        except AssertionError as error:
            raise self._taken_over() from error

    def _taken_over(self) -> Unreachable:
        return Unreachable(f"another `{self._doing}` took over: let it finish, and start this one again")


def _append(batch: Any, copy: Copy) -> bool:
    timestamp_ms = None if copy.timestamp_ms == NO_TIMESTAMP else copy.timestamp_ms
    return append(batch, copy.key, copy.value, copy.headers, timestamp_ms)
