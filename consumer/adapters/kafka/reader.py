"""Reading what is on the topics without taking part in anything, by aiokafka: for `inspect` and `verify`.

Nothing is written, committed or created: no group is joined, and the topics are known to exist before any client asks
for their metadata, which could create them.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from msgspec import Struct

from consumer.adapters.kafka.connection import USER, connection_arguments, world_error
from consumer.adapters.kafka.group import committed_of
from consumer.adapters.kafka.topics import TopicAdmin, plans
from consumer.core.record import Record
from consumer.runtime.ports import Committed, Misfit, Unreachable
from consumer.runtime.settings import Settings

_POLL_MS = 200
_WAIT_MS = 20
"""A fetch that still waits at the end of one partition holds up the first of the next."""
_RECORDS_MAX = 500
_COORDINATOR_POLL_S = 0.2
_UNDECIDED_S = 20.0
"""The broker looks for transactions that have timed out every 10 s."""
_STOP_S = 5.0
_COMING = (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)


class Span(Struct, frozen=True):
    """The offsets that a partition holds: from `begin` up to, and without, `end`."""

    begin: int
    end: int


class KafkaReader:
    """A reader of any partition of the four topics, as an async context manager. Raises WorldError throughout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        arguments: dict[str, Any] = {
            "enable_auto_commit": False,
            "auto_offset_reset": "none",  # a position that retention has deleted is told, not passed over
            "fetch_max_wait_ms": _WAIT_MS,
            "max_partition_fetch_bytes": settings.partition_fetch_bytes_max,
            **connection_arguments(settings),
        }
        self._committed = AIOKafkaConsumer(isolation_level="read_committed", **arguments)
        self._written = AIOKafkaConsumer(isolation_level="read_uncommitted", **arguments)
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
            for consumer in (self._committed, self._written):
                await self._bounded(consumer.start(), f"connecting to {self._settings.bootstrap_servers}")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def offset_of_group(self, partition: int) -> Committed | None:
        """Where the group stands in a partition of the input, None if it never committed."""
        return await self._bounded(  # type: ignore[no-any-return]
            self._ask_offset(partition), "reading the committed offset of the group"
        )

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
        consumer = self._committed
        consumer.assign([tp])
        consumer.seek(tp, span.begin)
        moved_s, position = time.monotonic(), span.begin
        patience_s = self._settings.transaction_timeout_ms / 1_000 + _UNDECIDED_S
        while position < span.end:
            fetched = await self._getmany(tp)
            records = [
                Record(each.topic, each.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
                for each in fetched
                if each.offset < span.end
            ]
            at = int(await self._bounded(consumer.position(tp), "reading"))
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

    async def _ask_offset(self, partition: int) -> Committed | None:
        settings, client = self._settings, self._committed._client  # noqa: SLF001 - aiokafka's own calls need a member
        request = OffsetFetchRequest(settings.group_id, [(settings.input_topic, [partition])])
        while True:
            try:
                node = await client.coordinator_lookup(CoordinationType.GROUP, settings.group_id)
                answer = await client.send(node, request)
            except _COMING:  # the coordinator moves, or the broker still makes its topic of offsets
                await asyncio.sleep(_COORDINATOR_POLL_S)
                continue
            if getattr(answer, "error_code", 0) not in {each.errno for each in _COMING}:
                return committed_of(answer, settings.input_topic, partition)
            await asyncio.sleep(_COORDINATOR_POLL_S)

    async def _stop(self) -> None:
        for consumer in (self._committed, self._written):
            try:
                await asyncio.wait_for(consumer.stop(), _STOP_S)
            except (KafkaError, TimeoutError):
                with contextlib.suppress(KafkaError, OSError):
                    await consumer._client.close()  # noqa: SLF001 - the only way left to close its sockets

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await asyncio.wait_for(doing, self._timeout_s)
        except (KafkaError, TimeoutError, OSError) as error:
            raise world_error(error, what) from error
