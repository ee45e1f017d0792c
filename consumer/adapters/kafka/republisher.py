"""Writing records to topics once more, each transaction as a whole, by aiokafka.

After any failure the producer is of no use, so that the command ends and is started again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IllegalOperation, KafkaError
from msgspec import Struct

from consumer.adapters.kafka import markers
from consumer.adapters.kafka.batches import append, broken_by, end_of, producer, send, transactional_id
from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import start
from consumer.adapters.kafka.coordinator import Group
from consumer.adapters.kafka.faults import world_error
from consumer.adapters.kafka.markers import Undecided, Written
from consumer.adapters.kafka.records import partition_of
from consumer.runtime.kafka_tools import abort_command
from consumer.runtime.ports import Fenced, Misfit, Unreachable
from consumer.runtime.republish import NO_TIMESTAMP, Copy
from consumer.runtime.settings import Settings
from consumer.runtime.settlement import Verdict

_STOP_S = 5.0
_REQUEST_BYTES_MAX = 16 * 1_048_576


class Scope(Struct, frozen=True):
    """What the transactions of a republisher may hold."""

    partitions: Mapping[str, int]
    """How many partitions each topic has."""
    outputs: Sequence[TopicPartition]
    group_id: str = ""
    sources: Sequence[TopicPartition] = ()
    """The partitions, of one topic, whose offsets the group commits."""


class Republisher:
    """A transactional producer, as an async context manager. Raises WorldError from every method but leaving.

    Entering takes the transactional id of that name over: another holder is fenced and its open transaction aborted.
    What brokers have lost of the last transaction's end is written again, and `on_repair` called with a sentence about
    it. `doing` is what the command is called in messages, and `client` any that is connected.
    """

    def __init__(
        self,
        settings: Settings,
        client: AIOKafkaClient,
        name: str,
        doing: str,
        scope: Scope,
        on_repair: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._group = Group(client, scope.group_id)
        self._transactional_id = transactional_id(settings, name)
        self._doing = doing
        self._scope = scope
        self._on_repair = on_repair
        self._in_transaction = False
        self._unconfirmed: Written | None = None
        """What the last transaction wrote, as long as it is not known that its markers have arrived."""
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Self:
        settings, within_s = self._settings, self._settings.commit_timeout_s
        # Asked before the producer starts, which makes the coordinator forget.
        asking = markers.find_verdict(self._client, self._transactional_id)
        verdict = await self._bounded(asking, "asking for the last transaction")
        self._producer = producer(
            settings,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_request_size=max(_REQUEST_BYTES_MAX, 2 * settings.dead_letter_bytes_max),
        )
        try:
            await start(self._producer.start(), settings, within_s, self._stop, "starting the producer")
        except Fenced as error:
            raise self._taken_over() from error
        try:
            await self._repair(verdict)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._in_transaction:  # readers wait for its end, and need not wait for it to time out
            # Where that fails, fenced or cut off, whoever starts next aborts it, or the broker in time.
            with contextlib.suppress(KafkaError, IllegalOperation, TimeoutError, AssertionError):
                await within(_STOP_S, self._producer.abort_transaction())
        try:
            if kind is None:
                await self._confirm()
        finally:
            await self._stop()

    async def publish(self, copies: Sequence[Copy], offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Write all copies, in their order per partition, and the group's offsets; all of it or nothing."""
        await self._confirm()
        self._in_transaction = True
        await self._bounded(self._transact(copies, offsets or {}), "writing records")
        self._in_transaction = False

    async def _transact(self, copies: Sequence[Copy], offsets: Mapping[TopicPartition, int]) -> None:
        await self._producer.begin_transaction()
        try:
            sent = await self._send(copies)
            await asyncio.gather(*(answer for _, _, answer in sent))
            ends = {place: await end_of(count, answer) for place, count, answer in sent}
            if offsets:
                await self._producer.send_offsets_to_transaction(dict(offsets), self._scope.group_id)
        except (KafkaError, IllegalOperation) as error:
            raise broken_by(self._producer) or error from error
        await self._producer.commit_transaction()
        self._unconfirmed = Written(ends, dict(offsets))

    async def _confirm(self) -> None:
        """Make sure that the last transaction has ended everywhere: the marker of the next would decide over it."""
        if self._unconfirmed is not None:
            confirming = markers.confirm(self._client, self._group, self._unconfirmed)
            await self._bounded(confirming, "confirming the last transaction")
            self._unconfirmed = None

    async def _repair(self, verdict: Verdict | None) -> None:
        """Write what brokers have lost of the last transaction's end, which went as `verdict` says."""
        undecided = await self._find_undecided()
        if not undecided.hangs:
            return
        scope, hanging = self._scope, undecided.hanging
        places = [f"{tp.topic}-{tp.partition} from offset {start}" for tp, start in hanging.items()]
        places += [f"the offsets of group {scope.group_id!r}"] * undecided.has_pending_offsets
        what = f"brokers lost the end of this command's last transaction (KAFKA-20734): {', '.join(places)}"
        if verdict is None:
            commands = [abort_command(self._settings, tp.topic, tp.partition, start) for tp, start in hanging.items()]
            raise Misfit(
                f"{what}; no broker remembers whether it was committed: decide yourself: to drop what hangs, run "
                f"{', '.join(commands)}"
            )
        group_id = scope.group_id if undecided.has_pending_offsets else None
        ending = markers.end_transaction(self._producer, hanging, group_id, verdict)
        await self._bounded(ending, "repairing the last transaction")
        if (await self._find_undecided()).hangs:
            raise Unreachable(f"{what}; what was written again is lost as well: start this command again")
        self._on_repair(f"{what}; it had ended as {verdict}, and that is written again")

    async def _find_undecided(self) -> Undecided:
        scope, producer_id = self._scope, self._producer._txn_manager.producer_id  # noqa: SLF001 - nothing public gives it
        finding = markers.find_undecided(self._client, self._group, producer_id, scope.outputs, scope.sources)
        return await self._bounded(finding, "looking for undecided records")  # type: ignore[no-any-return]

    async def _send(self, copies: Sequence[Copy]) -> list[tuple[TopicPartition, int, Awaitable[Any]]]:
        """Send copies in as few batches as fit; returns where each goes, its count and the future of its answer."""
        batches: dict[TopicPartition, Any] = {}
        sent: list[tuple[TopicPartition, int, Awaitable[Any]]] = []

        async def flush(place: TopicPartition) -> None:
            batch = batches.pop(place)
            sent.append((place, batch.record_count(), await send(self._producer, batch, *place)))

        for copy in copies:
            place = TopicPartition(copy.topic, self._partition(copy))
            if place in batches and _append(batches[place], copy):
                continue
            if place in batches:
                await flush(place)
            batches[place] = self._producer.create_batch()
            _append(batches[place], copy)
        for place in list(batches):
            await flush(place)
        return sent

    def _partition(self, copy: Copy) -> int:
        count = self._scope.partitions[copy.topic]
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
