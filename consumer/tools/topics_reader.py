"""Read the four topics for `inspect`, `verify` and `export`, without any effect on the cluster.

No group is joined, and nothing is written, committed or created. A client that asks for the metadata of a topic could
create it, so the topics are known to exist before any client asks.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Self

from consumer.core.record import Record
from consumer.kafka import coordinator
from consumer.kafka.errors import call
from consumer.kafka.log_ends import find_log_ends
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.records import OffsetRange
from consumer.preflight.check_result import CheckResult
from consumer.preflight.topic_admin import TopicAdmin
from consumer.preflight.topic_checks import compaction, plans
from consumer.settings import Settings
from consumer.tools.read_spans import OnRead, read_spans
from consumer.worker.ports import Committed, ConfigurationError, ExternalError
from consumer.worker.standstill import LogEnd

_WAIT_MS = 20
"""A fetch that waits at the end of one partition delays the first fetch of the next."""
_NEWEST_RECORDS = 10
"""Of each partition, of which one has to have a key."""
_NEWEST_S = 5.0
_OPEN_TRANSACTIONS_S = 20.0
"""How long after its timeout a transaction may stay open: the broker looks for such transactions every 10 s."""


class TopicsReader:
    """Reads any partition of the four topics; an async context manager. Every method raises ExternalError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        passes_over = settings.oversized_batches == "dead_letter"
        self._reader = PartitionReader(settings, passes_over=passes_over, fetch_max_wait_ms=_WAIT_MS)
        self._uncommitted_reader = PartitionReader(settings, isolation_level="read_uncommitted")
        self._exit_stack = AsyncExitStack()
        self.partitions = 0
        """The partition count of the input topic."""
        self.compaction = CheckResult("cleanup", "pass", "")
        """Whether compaction may have removed records of the input."""

    async def __aenter__(self) -> Self:
        async with TopicAdmin(self._settings) as admin:
            topics = await admin.find()
        for plan in plans(self._settings):
            if plan.name not in topics:
                raise ConfigurationError(f"topic {plan.name!r} ({plan.setting}) does not exist: check the setting")
        source = topics[self._settings.input_topic]
        self.partitions, self.compaction = source.partitions, compaction(self._settings, source)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._reader)
            await stack.enter_async_context(self._uncommitted_reader)
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit_stack.aclose()

    def check_partition(self, partition: int) -> None:
        """Raise ConfigurationError if the input does not have a partition."""
        if partition >= self.partitions:
            raise ConfigurationError(
                f"--partition: {self._settings.input_topic!r} has {self.partitions} partitions, counted from 0"
            )

    async def find_committed(self, partition: int) -> Committed | None:
        """The group's committed offset of a partition of the input; None if it never committed."""
        group_id, topic = self._settings.group_id, self._settings.input_topic
        fetching = coordinator.find_committed(self._reader.client, group_id, topic, [partition])
        timeout_s = self._settings.tuning.request_timeout_ms / 1_000
        committed: dict[int, Committed | None] = await call(
            timeout_s, fetching, "reading the committed offset of the group"
        )
        return committed[partition]

    async def find_newest_key(self) -> bytes | None:
        """The key of one of the newest records of the input.

        None if none of them has one, or if they cannot be read within `_NEWEST_S`: no permission, no leader.
        """
        topic = self._settings.input_topic
        with suppress(ExternalError, TimeoutError):
            async with asyncio.timeout(_NEWEST_S):
                begins, ends = await self._reader.bounds(topic, range(self.partitions))
                starts = {number: max(begins[number], ends[number] - _NEWEST_RECORDS) for number in ends}
                async with aclosing(self._reader.read(topic, starts, ends)) as slices:
                    async for records in slices:
                        for record in records:
                            if record.key:
                                return record.key
        return None

    async def find_undecided(self, partitions: Sequence[int]) -> Mapping[int, LogEnd]:
        """The ends of those partitions of the input where records wait for the end of a transaction."""
        ends = await find_log_ends(self._settings, partitions)
        return {number: end for number, end in ends.items() if isinstance(end, LogEnd) and end.undecided}

    async def span(self, topic: str, partition: int) -> OffsetRange:
        """All offsets of a partition, those of open transactions included."""
        begins, ends = await self._uncommitted_reader.bounds(topic, [partition])
        return OffsetRange(begins[partition], ends[partition])

    def read(
        self, topic: str, partition: int, span: OffsetRange, on_read: OnRead
    ) -> AsyncGenerator[list[Record], None]:
        """The committed records of a span, in order and in slices; a slice of nothing but markers is empty.

        If a transaction is open in the span, this waits until the broker must have ended it.
        """
        poll_timeout_s = self._settings.transaction_timeout_ms / 1_000 + _OPEN_TRANSACTIONS_S
        return read_spans(self._reader, topic, {partition: span}, on_read, poll_timeout_s)
