"""Writing records to topics once more, each transaction as a whole, by aiokafka.

As in `kafka_publisher`: every batch's answer is awaited before offsets go in, for `commit_transaction()` succeeds
although a batch failed; and after any failure the producer is of no use, so that the command ends and is started again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.partitioner import murmur2

from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import connection_arguments, start, world_error
from consumer.runtime.ports import Fenced, Unreachable
from consumer.runtime.republish import NO_TIMESTAMP, Copy
from consumer.runtime.settings import Settings

_STOP_S = 5.0
_POSITIVE = 0x7FFFFFFF  # Kafka's partitioner drops the sign of the hash
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
        self._producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_batch_size=settings.batch_bytes_max,
            max_request_size=max(_REQUEST_BYTES_MAX, 2 * settings.dead_letter_bytes_max),
            **connection_arguments(settings),
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
            raise self._broken_by() or error from error
        await self._producer.commit_transaction()

    async def _send(self, copies: Sequence[Copy]) -> list[Awaitable[Any]]:
        batches: dict[tuple[str, int], Any] = {}
        sent: list[Awaitable[Any]] = []
        for copy in copies:
            place = (copy.topic, self._partition(copy))
            batch = batches.get(place)
            if batch is None or not _append(batch, copy):
                if batch is not None:
                    sent.append(await self._send_batch(batch, place))
                batch = batches[place] = self._producer.create_batch()
                if not _append(batch, copy):
                    raise AssertionError("a record alone fits any batch, however large it is")
        sent += [await self._send_batch(batch, place) for place, batch in batches.items()]
        return sent

    async def _send_batch(self, batch: Any, place: tuple[str, int]) -> Awaitable[Any]:
        answer = await self._producer.send_batch(batch, place[0], partition=place[1])
        answer.add_done_callback(_see)
        return answer  # type: ignore[no-any-return]

    def _partition(self, copy: Copy) -> int:
        """As Kafka's own partitioner has it."""
        count = self._partitions[copy.topic]
        if copy.partition is not None:
            return copy.partition % count
        return int(murmur2(copy.key) & _POSITIVE) % count

    def _broken_by(self) -> BaseException | None:
        """What ended the transaction, None if nothing did. Whatever was tried after it failed for another reason."""
        ending = self._producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - nothing public tells it
        return ending.exception() if ending.done() and not ending.cancelled() else None

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


def _see(answer: asyncio.Future[Any]) -> None:
    """A failure is told by whichever answer is awaited first; the others are no news."""
    if not answer.cancelled():
        answer.exception()


def _append(batch: Any, copy: Copy) -> bool:
    timestamp = None if copy.timestamp_ms == NO_TIMESTAMP else copy.timestamp_ms
    return batch.append(key=copy.key, value=copy.value, timestamp=timestamp, headers=list(copy.headers)) is not None
