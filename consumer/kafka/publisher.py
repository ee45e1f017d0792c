"""Publishing a lane's effects, by aiokafka: exactly once in a transaction, or at least once without.

Facts of aiokafka 0.14 that shape this module, beside those of `producer`:

1. After a failed batch, responses for its partition are out of order. So the lane discards a producer after any
   failure.
2. `stop()` may hang. So it is bounded, and the connections are aborted after that.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from msgspec.structs import replace

from consumer.engine.dead_letters import is_marker
from consumer.engine.output import Output
from consumer.kafka import markers
from consumer.kafka.connection import diagnose_connection
from consumer.kafka.coordinator import Group
from consumer.kafka.errors import as_retriable
from consumer.kafka.group_consumer import GroupConsumer
from consumer.kafka.markers import Written
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.patches.internals import find_transaction_error, identify_producer
from consumer.kafka.producer import call_producer, create_producer, pack_outputs, send_outputs, transactional_id
from consumer.kafka.timeouts import stop_client
from consumer.kafka_commands import abort_command
from consumer.settings import OutputName, Settings
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import Effects, RetriableError
from consumer.worker.settlement import Settlement, Verdict

_STOP_S = 5.0


class _LanePublisher:
    """What both publishers share: `open` and `close` of `worker.ports.Publisher`, and how effects are written."""

    def __init__(self, settings: Settings, partition: int, **more: Any) -> None:
        self._settings = settings
        self._partition = partition
        self._timeout_s = settings.commit_timeout_s
        self._more = more
        self._outputs = {TopicPartition(topic, partition): name for name, topic in settings.outputs.items()}
        self._producer: Any = None
        """Created when it is started, since aiokafka warns of a producer that is collected without being started."""

    async def open(self) -> None:
        """Start the producer; a transactional one fences its predecessor here. Raises ExternalError."""
        self._producer = create_producer(self._settings, **self._more)
        try:
            await call_producer(self._timeout_s, self._producer.start(), "starting the producer")
        except RetriableError as error:
            if self._settings.security_protocol == "PLAINTEXT":
                raise
            raise as_retriable(await diagnose_connection(self._settings, error)) from error

    async def close(self) -> None:
        """Stop the producer. Its successor aborts the transaction that it leaves open."""
        if self._producer is None:
            return
        await stop_client(self._producer.stop(), self._producer.client, _STOP_S)

    async def settlement(self) -> Settlement:
        """See `Publisher.settlement`. Without transactions nothing hangs."""
        return Settlement()

    async def shows(self, output: OutputName, from_offset: int) -> bool:  # noqa: ARG002 - the protocol's
        """See `Publisher.shows`."""
        return False

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """See `Publisher.settle`."""

    async def confirm(self) -> None:
        """See `Publisher.confirm`."""

    async def _send(self, effects: Effects) -> Ends:
        """Write all effects and wait for the response to every batch; returns where they end."""
        outputs: dict[OutputName, Sequence[Output]] = {
            "state": effects.states,
            "transitions": effects.transitions,
            "dead_letters": effects.dead_letters,
        }
        producer = self._producer
        placed = ((tp, part) for tp, name in self._outputs.items() for part in pack_outputs(producer, outputs[name]))
        return self._to_ends(await send_outputs(producer, placed))

    def _to_ends(self, offsets: Mapping[TopicPartition, int]) -> Ends:
        return Ends(**{name: offsets.get(tp) for tp, name in self._outputs.items()})


class TransactionalPublisher(_LanePublisher):
    """Publishes effects and the input offset in one transaction.

    The transactional id belongs to the input partition and not to the worker. That alone fences a zombie, since
    aiokafka sends neither member nor generation with the offsets of a transaction.
    """

    def __init__(self, settings: Settings, partition: int) -> None:
        super().__init__(
            settings,
            partition,
            transactional_id=transactional_id(settings, str(partition)),
            transaction_timeout_ms=settings.transaction_timeout_ms,
        )
        self._source = TopicPartition(settings.input_topic, partition)
        self._unconfirmed: Written | None = None
        """What the last commit wrote, until its markers are known to have arrived."""

    async def open(self) -> None:
        """See `_LanePublisher.open`."""
        await super().open()
        self._group = Group(self._producer.client, self._settings.group_id)

    async def settlement(self) -> Settlement:
        """See `Publisher.settlement`. Raises RetriableError if another producer blocks the readers of an output."""
        client, producer_id = self._producer.client, identify_producer(self._producer).producer_id
        finding = markers.find_undecided(client, self._group, producer_id, self._outputs.keys(), [self._source])
        undecided = await call_producer(self._timeout_s, finding, "looking for undecided records")
        for tp, other in undecided.others.items():
            if self._outputs[tp] != "dead_letters":  # a redrive writes there
                raise RetriableError(
                    f"partition {tp.partition} of topic {tp.topic!r}: producer {other.producer_id} has a transaction "
                    f"open since offset {other.start_offset}: only this service may write there. If it stays so: "
                    f"{abort_command(self._settings, tp.topic, tp.partition, other.start_offset)}"
                )
        hanging = {self._outputs[tp]: start for tp, start in undecided.hanging.items()}
        return Settlement(self._to_ends(undecided.stable), hanging, undecided.has_pending_offsets)

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """See `Publisher.settle`."""
        hanging = [tp for tp, name in self._outputs.items() if name in settlement.hanging]
        group_id = self._group.group_id if settlement.is_offset_pending else None
        ending = markers.end_transaction(self._producer, hanging, group_id, verdict)
        await call_producer(self._timeout_s, ending, "repairing the last transaction")

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        """See `Publisher.shows`."""
        async with PartitionReader(self._settings) as reader:
            topic = self._settings.outputs[output]
            begins, ends = await reader.bounds(topic, [self._partition])
            start = max(from_offset, begins[self._partition])
            async with aclosing(reader.read(topic, {self._partition: start}, ends)) as parts:
                async for records in parts:
                    if any(not is_marker(record) for record in records):
                        return True
        return False

    async def confirm(self) -> None:
        """See `Publisher.confirm`. Asks the brokers once after each commit."""
        if self._unconfirmed is not None:
            confirming = markers.confirm(self._producer.client, self._group, self._unconfirmed)
            await call_producer(self._timeout_s, confirming, "confirming the last commit")
            self._unconfirmed = None

    async def commit(self, effects: Effects) -> Ends:
        """See `Publisher.commit`."""
        await self.confirm()
        return await call_producer(self._timeout_s, self._transact(effects), "committing")

    async def _transact(self, effects: Effects) -> Ends:
        await self._producer.begin_transaction()
        try:
            ends = await self._send(effects)
            committed = effects.committed(ends)
            offsets = {self._source: (committed.next_offset, committed.metadata)}
            await self._producer.send_offsets_to_transaction(offsets, self._settings.group_id)
        except (KafkaError, IllegalOperation) as error:
            raise find_transaction_error(self._producer) or error from error
        await self._producer.commit_transaction()
        written = {tp: end for tp, name in self._outputs.items() if (end := ends.of(name)) is not None}
        self._unconfirmed = Written(written, {self._source: effects.next_offset})
        return ends


class AtLeastOncePublisher(_LanePublisher):
    """Publishes transitions and dead letters first, then states, then the offset: a crash in between repeats effects.

    In another order a crash would lose transitions: the records are read again, and change nothing in a state that
    already contains them.
    """

    def __init__(self, settings: Settings, partition: int, input_consumer: GroupConsumer) -> None:
        super().__init__(settings, partition)
        self._input_consumer = input_consumer

    async def commit(self, effects: Effects) -> Ends:
        """See `Publisher.commit`."""
        await call_producer(self._timeout_s, self._send(replace(effects, states=[])), "publishing")
        states = self._send(replace(effects, transitions=[], dead_letters=[]))
        ends = await call_producer(self._timeout_s, states, "publishing")
        await self._input_consumer.commit(self._partition, effects.committed(Ends()))
        return ends
