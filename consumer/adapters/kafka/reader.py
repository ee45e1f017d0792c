"""Reading what is on the topics without taking part in anything, by aiokafka: for `inspect` and `verify`.

Nothing is written, committed or created: no group is joined, and the topics are known to exist before any client asks
for their metadata, which could create them.
"""

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import Any, Self

from aiokafka import TopicPartition

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.faults import answered
from consumer.adapters.kafka.finding import Finding
from consumer.adapters.kafka.log_ends import find_log_ends
from consumer.adapters.kafka.records import Span, standalone_consumer, stop
from consumer.adapters.kafka.topic_checks import compaction, plans
from consumer.adapters.kafka.topic_reader import TopicReader
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.core.record import Record
from consumer.runtime.ports import Committed, Misfit
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import LogEnd

_WAIT_MS = 20
"""A fetch that still waits at the end of one partition holds up the first of the next."""
_UNDECIDED_S = 20.0
"""The broker looks for transactions that have timed out every 10 s."""


class KafkaReader:
    """A reader of any partition of the four topics, as an async context manager. Raises WorldError throughout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._reader = TopicReader(settings, fetch_max_wait_ms=_WAIT_MS)
        self._written = standalone_consumer(settings, isolation_level="read_uncommitted")
        self.partitions = 0
        """Of the input topic."""
        self.compaction = Finding("cleanup", "pass", "")
        """Whether the input topic still has every record, but for those that are too old."""

    async def __aenter__(self) -> Self:
        async with TopicAdmin(self._settings) as admin:
            found = await admin.find()
        for plan in plans(self._settings):
            if plan.name not in found:
                raise Misfit(f"topic {plan.name!r} ({plan.setting}) does not exist: check the setting")
        source = found[self._settings.input_topic]
        self.partitions, self.compaction = source.partitions, compaction(self._settings, source)
        try:
            await self._reader.__aenter__()
            await self._bounded(self._written.start(), f"connecting to {self._settings.bootstrap_servers}")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def offset_of_group(self, partition: int) -> Committed | None:
        """Where the group stands in a partition of the input, None if it never committed."""
        group_id, topic = self._settings.group_id, self._settings.input_topic
        asked = coordinator.committed(self._reader.client, group_id, topic, [partition])
        found: Committed | None = (await self._bounded(asked, "reading the committed offset of the group"))[partition]
        return found

    async def undecided(self, partitions: Sequence[int]) -> Mapping[int, LogEnd]:
        """The ends of those partitions of the input where records wait for the end of a transaction."""
        ends = await find_log_ends(self._settings, partitions)
        return {number: end for number, end in ends.items() if isinstance(end, LogEnd) and end.undecided}

    async def span(self, topic: str, partition: int) -> Span:
        """What was written to a partition so far, with what is not committed yet."""
        tp = TopicPartition(topic, partition)
        begin = await self._bounded(self._written.beginning_offsets([tp]), "reading the first offset")
        end = await self._bounded(self._written.end_offsets([tp]), "reading the last offset")
        return Span(int(begin[tp]), int(end[tp]))

    def read(self, topic: str, partition: int, span: Span) -> AsyncGenerator[list[Record], None]:
        """Committed records of a span, in order and in slices; an empty slice where there are only markers.

        Waits for transactions that are open in the span, up to the time after which the broker ends them.
        """
        patience_s = self._settings.transaction_timeout_ms / 1_000 + _UNDECIDED_S
        return self._reader.read(topic, {partition: span.begin}, {partition: span.end}, patience_s)

    async def _stop(self) -> None:
        await self._reader.__aexit__()
        await stop(self._written)

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        return await answered(self._timeout_s, doing, what)
