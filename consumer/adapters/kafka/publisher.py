"""Publishing a lane's effects, by aiokafka: exactly once in a transaction, or at least once without.

Facts of aiokafka 0.14 that shape it, beside those of `batches`: after a failure the producer answers wrongly for that
partition from then on, so it is thrown away; `stop()` may hang, so it is bounded and the client is closed under it; a
fenced producer answers later calls with AssertionError.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from msgspec.structs import replace

from consumer.adapters.kafka.batches import append, broken_by, producer, send
from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import unconnected
from consumer.adapters.kafka.faults import outlasted, world_error
from consumer.adapters.kafka.group import GroupIntake
from consumer.runtime.ports import Effects, Fenced, Output, Unreachable
from consumer.runtime.settings import Settings

_STOP_S = 5.0


class _LanePublisher:
    """What both ways of publishing share. Implements `open` and `close` of `runtime.ports.Publisher`."""

    def __init__(self, settings: Settings, partition: int, **more: Any) -> None:
        self._settings = settings
        self._partition = partition
        self._opened = False
        self._producer = producer(settings, **more)

    async def open(self) -> None:
        """Start the producer; a transactional one fences its predecessor here. Raises WorldError."""
        self._opened = True
        try:
            await self._bounded(self._producer.start(), "starting the producer")
        except Unreachable as error:
            if self._settings.security_protocol == "PLAINTEXT":
                raise
            raise outlasted(await unconnected(self._settings, error)) from error

    async def close(self) -> None:
        """Stop the producer; whatever it still had in flight is aborted by its successor."""
        if not self._opened:
            return
        await stopped(self._producer.stop(), self._producer.client, _STOP_S)

    async def _send(self, effects: Effects) -> int | None:
        """Write all effects and wait for the broker's answer to each; returns the offset after the last state."""
        settings = self._settings
        sending = await self._send_outputs(settings.state_topic, effects.states)
        states = len(sending)
        sending += await self._send_outputs(settings.transitions_topic, effects.transitions)
        sending += await self._send_outputs(settings.dead_letters_topic, effects.dead_letters)
        counts = [count for count, _ in sending]
        answers = await asyncio.gather(*(future for _, future in sending))
        return max(
            (answer.offset + count for count, answer in zip(counts[:states], answers[:states], strict=True)),
            default=None,
        )

    async def _send_outputs(self, topic: str, outputs: Sequence[Output]) -> list[tuple[int, Awaitable[Any]]]:
        """Send outputs in as few batches as fit; returns each batch's count and the future of its answer."""
        sent: list[tuple[int, Awaitable[Any]]] = []
        batch = self._producer.create_batch()
        for output in outputs:
            if not append(batch, output.key, output.value, output.headers):
                sent.append((batch.record_count(), await send(self._producer, batch, topic, self._partition)))
                batch = self._producer.create_batch()
                append(batch, output.key, output.value, output.headers)
        if batch.record_count():
            sent.append((batch.record_count(), await send(self._producer, batch, topic, self._partition)))
        return sent

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await within(self._settings.commit_timeout_s, doing)
        except (KafkaError, IllegalOperation, TimeoutError, OSError) as error:
            raise world_error(error, what) from error
        except AssertionError as error:
            raise Fenced("the producer had been fenced") from error


class TransactionalPublisher(_LanePublisher):
    """Effects and input offset in one transaction.

    There is one transactional id per input partition, whoever owns it: that alone keeps a zombie out, since aiokafka
    sends no member or generation with the offsets of a transaction.
    """

    def __init__(self, settings: Settings, partition: int) -> None:
        super().__init__(
            settings,
            partition,
            transactional_id=f"{settings.group_id}-{settings.input_topic}-{partition}",
            transaction_timeout_ms=settings.transaction_timeout_ms,
        )

    async def commit(self, effects: Effects) -> int | None:
        """See `Publisher.commit`."""
        return await self._bounded(self._transact(effects), "committing")  # type: ignore[no-any-return]

    async def _transact(self, effects: Effects) -> int | None:
        await self._producer.begin_transaction()
        try:
            log_offset = await self._send(effects)
            source = TopicPartition(self._settings.input_topic, self._partition)
            committed = effects.committed(log_offset)
            offsets = {source: (committed.next_offset, committed.metadata)}
            await self._producer.send_offsets_to_transaction(offsets, self._settings.group_id)
        except (KafkaError, IllegalOperation) as error:
            raise broken_by(self._producer) or error from error
        await self._producer.commit_transaction()
        return log_offset


class AtLeastOncePublisher(_LanePublisher):
    """What follows from the states first, then the states, then the offset: a crash in between repeats effects.

    A state that is there before its transitions would lose them: its records come again and change nothing.
    """

    def __init__(self, settings: Settings, partition: int, intake: GroupIntake) -> None:
        super().__init__(settings, partition)
        self._intake = intake

    async def commit(self, effects: Effects) -> int | None:
        """See `Publisher.commit`."""
        await self._bounded(self._send(replace(effects, states=[])), "publishing")
        log_offset = await self._bounded(self._send(replace(effects, transitions=[], dead_letters=[])), "publishing")
        await self._intake.commit(self._partition, effects.committed(None))
        return log_offset  # type: ignore[no-any-return]
