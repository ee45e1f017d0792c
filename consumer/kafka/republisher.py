"""Write records again, each transaction as a whole, by aiokafka.

A producer that has failed is of no further use: the command ends, and the user starts it again.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IllegalOperation, KafkaError
from msgspec import Struct

from consumer.engine.output import Output
from consumer.kafka import markers
from consumer.kafka.connection import start
from consumer.kafka.coordinator import Group
from consumer.kafka.markers import Undecided, Written
from consumer.kafka.patches.internals import find_transaction_error, identify_producer
from consumer.kafka.producer import call_producer, create_producer, send_outputs, transactional_id
from consumer.kafka.records import partition_of
from consumer.kafka.timeouts import stop_client, wait
from consumer.kafka_commands import abort_command
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, FencedError, RetriableError
from consumer.worker.settlement import Verdict

_STOP_S = 5.0
_REQUEST_BYTES_MAX = 16 * 1_048_576

Partition = tuple[str, int]
"""A topic and one of its partitions."""


class Scope(Struct, frozen=True):
    """What the transactions of a republisher may contain."""

    partitions: Mapping[str, int]
    """The partition count of each topic."""
    outputs: Sequence[Partition]
    """Where records may be written."""
    group_id: str = ""
    sources: Sequence[Partition] = ()
    """The partitions, of one topic, whose offsets the group commits."""


class Republisher:
    """A transactional producer, as an async context manager.

    Every method raises ExternalError; `__aexit__` does so if the end of the last transaction does not arrive.
    Entering takes over the transactional id of that name: another holder is fenced, and its open transaction aborted.
    If brokers have lost the end of the id's last transaction, it is written again, and `on_repair` gets a sentence
    about that. Messages call the command `command`. `client` may be any connected client.
    """

    def __init__(
        self,
        settings: Settings,
        client: AIOKafkaClient,
        name: str,
        command: str,
        scope: Scope,
        on_repair: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._group = Group(client, scope.group_id)
        self._transactional_id = transactional_id(settings, name)
        self._command = command
        self._scope = scope
        self._on_repair = on_repair
        self._in_transaction = False
        self._unconfirmed: Written | None = None
        """What the last transaction wrote, until its markers are known to have arrived."""
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Self:
        settings = self._settings
        # Before the producer starts, which makes the coordinator forget the verdict.
        finding = markers.find_verdict(self._client, self._transactional_id)
        verdict = await self._call(finding, "asking for the last transaction")
        self._producer = create_producer(
            settings,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_request_size=max(_REQUEST_BYTES_MAX, 2 * settings.dead_letter_bytes_max),
        )
        try:
            await start(
                self._producer.start(), settings, settings.commit_timeout_s, self._stop, "starting the producer"
            )
        except FencedError as error:
            raise self._taken_over() from error
        try:
            await self._repair(verdict)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._in_transaction:  # readers wait for its end: abort it now rather than by the broker's timeout
            # Where the abort fails, fenced or cut off, the next start of the command aborts it, or the broker in time.
            with contextlib.suppress(KafkaError, IllegalOperation, TimeoutError, AssertionError):
                await wait(_STOP_S, self._producer.abort_transaction())
        try:
            if kind is None:
                await self._confirm()
        finally:
            await self._stop()

    async def publish(self, outputs: Sequence[Output], offsets: Mapping[Partition, int] | None = None) -> None:
        """Write all outputs, in their order within each partition, and commit the group's offsets: all or nothing."""
        await self._confirm()
        self._in_transaction = True
        await self._call(self._transact(outputs, offsets or {}), "writing records")
        self._in_transaction = False

    async def _transact(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        committed = {TopicPartition(*partition): offset for partition, offset in offsets.items()}
        await self._producer.begin_transaction()
        try:
            ends = await send_outputs(self._producer, ((self._partition_of(output), output) for output in outputs))
            if committed:
                await self._producer.send_offsets_to_transaction(committed, self._scope.group_id)
        except (KafkaError, IllegalOperation) as error:
            raise find_transaction_error(self._producer) or error from error
        await self._producer.commit_transaction()
        self._unconfirmed = Written(ends, committed)

    async def _confirm(self) -> None:
        """Wait until the last transaction has ended in every partition: the next one's marker would decide over it."""
        if self._unconfirmed is not None:
            confirming = markers.confirm(self._client, self._group, self._unconfirmed)
            await self._call(confirming, "confirming the last transaction")
            self._unconfirmed = None

    async def _repair(self, verdict: Verdict | None) -> None:
        """Write the end of the last transaction, which `verdict` gives, where brokers have lost it."""
        undecided = await self._find_undecided()
        if not undecided.hangs:
            return
        scope, hanging = self._scope, undecided.hanging
        parts = [f"{tp.topic}-{tp.partition} from offset {start}" for tp, start in hanging.items()]
        parts += [f"the offsets of group {scope.group_id!r}"] * undecided.has_pending_offsets
        problem = f"brokers lost the end of this command's last transaction (KAFKA-20734): {', '.join(parts)}"
        if verdict is None:
            commands = [abort_command(self._settings, tp.topic, tp.partition, start) for tp, start in hanging.items()]
            raise ConfigurationError(
                f"{problem}; no broker remembers whether it was committed: decide yourself: to drop what hangs, run "
                f"{', '.join(commands)}"
            )
        group_id = scope.group_id if undecided.has_pending_offsets else None
        ending = markers.end_transaction(self._producer, hanging, group_id, verdict)
        await self._call(ending, "repairing the last transaction")
        if (await self._find_undecided()).hangs:
            raise RetriableError(f"{problem}; brokers lost the repair as well: start this command again")
        self._on_repair(f"{problem}; it had ended as {verdict}, and that is written again")

    async def _find_undecided(self) -> Undecided:
        outputs, sources = (
            [TopicPartition(*partition) for partition in some] for some in (self._scope.outputs, self._scope.sources)
        )
        producer_id = identify_producer(self._producer).producer_id
        finding = markers.find_undecided(self._client, self._group, producer_id, outputs, sources)
        return await self._call(finding, "looking for undecided records")  # type: ignore[no-any-return]

    def _partition_of(self, output: Output) -> TopicPartition:
        assert output.topic is not None
        count = self._scope.partitions[output.topic]
        if output.partition is not None:
            return TopicPartition(output.topic, output.partition % count)
        assert output.key is not None
        return TopicPartition(output.topic, partition_of(output.key, count))

    async def _stop(self) -> None:
        await stop_client(self._producer.stop(), self._producer.client, _STOP_S)

    async def _call(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await call_producer(self._settings.commit_timeout_s, doing, what)
        except FencedError as error:
            raise self._taken_over() from error

    def _taken_over(self) -> RetriableError:
        return RetriableError(f"another `{self._command}` took over: let it finish, then start this one again")
