"""Reading what is on the topics without taking part in anything, by aiokafka: for `inspect` and `verify`.

Nothing is written, committed or created: no group is joined, and the topics are known to exist before any client asks
for their metadata, which could create them.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, TopicAuthorizationFailedError

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.faults import USER, answered, world_error
from consumer.adapters.kafka.records import Span, record_of, standalone_consumer, stop
from consumer.adapters.kafka.topics import TopicAdmin, plans
from consumer.core.record import Record
from consumer.runtime.ports import Committed, Misfit, Unreachable
from consumer.runtime.settings import Settings

_POLL_MS = 200
_WAIT_MS = 20
"""A fetch that still waits at the end of one partition holds up the first of the next."""
_RECORDS_MAX = 500
_UNDECIDED_S = 20.0
"""The broker looks for transactions that have timed out every 10 s."""


class KafkaReader:
    """A reader of any partition of the four topics, as an async context manager. Raises WorldError throughout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        arguments: dict[str, Any] = {
            "auto_offset_reset": "none",  # a position that retention has deleted is told, not passed over
            "fetch_max_wait_ms": _WAIT_MS,
        }
        self._committed = standalone_consumer(settings, **arguments)
        self._written = standalone_consumer(settings, isolation_level="read_uncommitted", **arguments)
        self.partitions = 0
        """Of the input topic."""

    async def __aenter__(self) -> Self:
        async with TopicAdmin(self._settings) as admin:
            found = await admin.find()
        for plan in plans(self._settings):
            if plan.name not in found:
                raise Misfit(f"topic {plan.name!r} ({plan.setting}) does not exist: check the setting")
        self.partitions = found[self._settings.input_topic].partitions
        try:
            for each in (self._committed, self._written):
                await self._bounded(each.start(), f"connecting to {self._settings.bootstrap_servers}")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def offset_of_group(self, partition: int) -> Committed | None:
        """Where the group stands in a partition of the input, None if it never committed."""
        group_id, topic = self._settings.group_id, self._settings.input_topic
        asked = coordinator.committed(self._committed._client, group_id, topic, [partition])  # noqa: SLF001 - as in `records`
        found: Committed | None = (await self._bounded(asked, "reading the committed offset of the group"))[partition]
        return found

    async def span(self, topic: str, partition: int) -> Span:
        """What was written to a partition so far, with what is not committed yet."""
        tp = TopicPartition(topic, partition)
        begin = await self._bounded(self._written.beginning_offsets([tp]), "reading the first offset")
        end = await self._bounded(self._written.end_offsets([tp]), "reading the last offset")
        return Span(int(begin[tp]), int(end[tp]))

    async def read(self, topic: str, partition: int, span: Span) -> AsyncGenerator[list[Record], None]:
        """Committed records of a span, in order and in slices; an empty slice where there are only markers.

        Waits for transactions that are open in the span, up to the time after which the broker ends them.
        """
        tp = TopicPartition(topic, partition)
        self._committed.assign([tp])
        self._committed.seek(tp, span.begin)
        moved_s, position = time.monotonic(), span.begin
        patience_s = self._settings.transaction_timeout_ms / 1_000 + _UNDECIDED_S
        while position < span.end:
            fetched = await self._getmany(tp)
            records = [record_of(each) for each in fetched if each.offset < span.end]
            at = int(await self._bounded(self._committed.position(tp), "reading"))
            if at > position:
                moved_s, position = time.monotonic(), at
            elif time.monotonic() - moved_s > patience_s:
                raise Unreachable(
                    f"reading partition {partition} of {topic!r} stands still at {at} of {span.end}: a transaction is "
                    f"open there, or the broker does not answer"
                )
            yield records
            await asyncio.sleep(0)  # getmany does not suspend while it has records

    async def _getmany(self, tp: TopicPartition) -> Sequence[Any]:
        try:
            fetched = await self._committed.getmany(tp, timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
        except TopicAuthorizationFailedError as error:
            raise Misfit(
                f"reading {tp.topic!r}: a permission is missing: grant {USER} Read on this topic "
                f"({type(error).__name__})"
            ) from error
        except OffsetOutOfRangeError as error:
            raise Unreachable(f"reading {tp.topic!r}: retention deleted records just now: start again") from error
        except KafkaError as error:
            raise world_error(error, f"reading {tp.topic!r}") from error
        found: Sequence[Any] = fetched.get(tp, ())
        return found

    async def _stop(self) -> None:
        for each in (self._committed, self._written):
            await stop(each)

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        return await answered(self._timeout_s, doing, what)
