"""Publishing a lane's effects, by aiokafka: exactly once in a transaction, or at least once without.

Facts of aiokafka 0.14 that shape it, beside those of `batches`: after a failure the producer answers wrongly for that
partition from then on, so it is thrown away; `stop()` may hang, so it is bounded and the client is closed under it; a
fenced producer answers later calls with AssertionError.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from msgspec.structs import replace

from consumer.adapters.kafka import markers
from consumer.adapters.kafka.batches import append, broken_by, end_of, producer, send, transactional_id
from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import unconnected
from consumer.adapters.kafka.coordinator import Group
from consumer.adapters.kafka.faults import outlasted, world_error
from consumer.adapters.kafka.group import GroupIntake
from consumer.adapters.kafka.markers import Undecided, Written
from consumer.adapters.kafka.topic_reader import TopicReader
from consumer.runtime.bookmark import Ends, OutputName
from consumer.runtime.kafka_tools import abort_command
from consumer.runtime.ports import Effects, Fenced, Output, Unreachable
from consumer.runtime.redrive import is_marker
from consumer.runtime.settings import Settings
from consumer.runtime.settlement import Settlement, Verdict

_STOP_S = 5.0


class _LanePublisher:
    """What both ways of publishing share. Implements `open` and `close` of `runtime.ports.Publisher`."""

    def __init__(self, settings: Settings, partition: int, **more: Any) -> None:
        self._settings = settings
        self._partition = partition
        self._more = more
        self._producer: Any = None
        """Made as it is started: one that never was started complains when it is collected."""

    async def open(self) -> None:
        """Start the producer; a transactional one fences its predecessor here. Raises WorldError."""
        self._producer = producer(self._settings, **self._more)
        try:
            await self._bounded(self._producer.start(), "starting the producer")
        except Unreachable as error:
            if self._settings.security_protocol == "PLAINTEXT":
                raise
            raise outlasted(await unconnected(self._settings, error)) from error

    async def close(self) -> None:
        """Stop the producer; whatever it still had in flight is aborted by its successor."""
        if self._producer is None:
            return
        await stopped(self._producer.stop(), self._producer.client, _STOP_S)

    async def settlement(self) -> Settlement:
        """See `Publisher.settlement`. Without transactions nothing is ever undecided."""
        return Settlement()

    async def shows(self, output: OutputName, from_offset: int) -> bool:  # noqa: ARG002 - the protocol's
        """See `Publisher.shows`."""
        return False

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """See `Publisher.settle`."""

    async def confirm(self) -> None:
        """See `Publisher.confirm`."""

    async def _send(self, effects: Effects) -> Ends:
        """Write all effects and wait for the broker's answer to each; returns where they end."""
        outputs: dict[OutputName, Sequence[Output]] = {
            "state": effects.states,
            "transitions": effects.transitions,
            "dead_letters": effects.dead_letters,
        }
        topics = self._settings.outputs
        sending = {name: await self._send_outputs(topics[name], outputs[name]) for name in outputs}
        await asyncio.gather(*(answer for some in sending.values() for _, answer in some))
        return Ends(**{name: await end_of(*some[-1]) for name, some in sending.items() if some})

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
            transactional_id=transactional_id(settings, str(partition)),
            transaction_timeout_ms=settings.transaction_timeout_ms,
        )
        self._source = TopicPartition(settings.input_topic, partition)
        self._outputs = {TopicPartition(topic, partition): name for name, topic in settings.outputs.items()}
        self._unconfirmed: Written | None = None
        """What the last commit wrote, as long as it is not known that its markers have arrived."""

    async def open(self) -> None:
        """See `_LanePublisher.open`."""
        await super().open()
        self._group = Group(self._producer.client, self._settings.group_id)

    async def settlement(self) -> Settlement:
        """See `Publisher.settlement`. Raises Unreachable where another producer holds readers of the outputs up."""
        client, producer_id = self._producer.client, self._producer._txn_manager.producer_id  # noqa: SLF001 - nothing public gives it
        finding = markers.find_undecided(client, self._group, producer_id, self._outputs.keys(), [self._source])
        found: Undecided = await self._bounded(finding, "looking for undecided records")
        for tp, other in found.others.items():
            if self._outputs[tp] != "dead_letters":  # a redrive writes there
                raise Unreachable(
                    f"partition {tp.partition} of topic {tp.topic!r}: producer {other.producer_id} has a transaction "
                    f"open since offset {other.start_offset}: only this service may write there. If it stays so: "
                    f"{abort_command(self._settings, tp.topic, tp.partition, other.start_offset)}"
                )
        hanging = {self._outputs[tp]: start for tp, start in found.hanging.items()}
        return Settlement(self._ends(found.stable), hanging, found.has_pending_offsets)

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """See `Publisher.settle`."""
        hanging = [tp for tp, name in self._outputs.items() if name in settlement.hanging]
        group_id = self._group.group_id if settlement.is_offset_pending else None
        ending = markers.end_transaction(self._producer, hanging, group_id, verdict)
        await self._bounded(ending, "repairing the last transaction")

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        """See `Publisher.shows`."""
        async with TopicReader(self._settings) as reader:
            topic = self._settings.outputs[output]
            begins, ends = await reader.bounds(topic, [self._partition])
            start = max(from_offset, begins[self._partition])
            async with aclosing(reader.read(topic, {self._partition: start}, ends)) as parts:
                async for records in parts:
                    if any(not is_marker(record) for record in records):
                        return True
        return False

    async def confirm(self) -> None:
        """See `Publisher.confirm`. Asks only once after each commit."""
        if self._unconfirmed is not None:
            confirming = markers.confirm(self._producer.client, self._group, self._unconfirmed)
            await self._bounded(confirming, "confirming the last commit")
            self._unconfirmed = None

    async def commit(self, effects: Effects) -> Ends:
        """See `Publisher.commit`."""
        await self.confirm()
        return await self._bounded(self._transact(effects), "committing")  # type: ignore[no-any-return]

    async def _transact(self, effects: Effects) -> Ends:
        await self._producer.begin_transaction()
        try:
            ends = await self._send(effects)
            committed = effects.committed(ends)
            offsets = {self._source: (committed.next_offset, committed.metadata)}
            await self._producer.send_offsets_to_transaction(offsets, self._settings.group_id)
        except (KafkaError, IllegalOperation) as error:
            raise broken_by(self._producer) or error from error
        await self._producer.commit_transaction()
        written = {tp: end for tp, name in self._outputs.items() if (end := ends.of(name)) is not None}
        self._unconfirmed = Written(written, {self._source: effects.next_offset})
        return ends

    def _ends(self, offsets: Mapping[TopicPartition, int]) -> Ends:
        return Ends(**{name: offsets.get(tp) for tp, name in self._outputs.items()})


class AtLeastOncePublisher(_LanePublisher):
    """What follows from the states first, then the states, then the offset: a crash in between repeats effects.

    A state that is there before its transitions would lose them: its records come again and change nothing.
    """

    def __init__(self, settings: Settings, partition: int, intake: GroupIntake) -> None:
        super().__init__(settings, partition)
        self._intake = intake

    async def commit(self, effects: Effects) -> Ends:
        """See `Publisher.commit`."""
        await self._bounded(self._send(replace(effects, states=[])), "publishing")
        ends = await self._bounded(self._send(replace(effects, transitions=[], dead_letters=[])), "publishing")
        await self._intake.commit(self._partition, effects.committed(Ends()))
        return ends  # type: ignore[no-any-return]
