"""The group member that reads the input topic, by aiokafka.

Facts of aiokafka 0.14 that shape it: `getmany` hands out records while `on_partitions_assigned` is still awaited, so
every fetch names its partition and a lane seeks before its first; exceptions of the callbacks are swallowed, so they
only record; `stop()` calls no callback and may hang, so it is bounded; rebalances are eager.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from consumer.adapters.kafka_connection import (
    connection_arguments,
    connection_fault,
    outlasted,
    unconnected,
    world_error,
)
from consumer.core.record import Record
from consumer.runtime.ports import Committed, Unreachable, WorldError
from consumer.runtime.settings import Settings

_JOIN_S = 60.0
_METADATA_MS = 30_000  # within which partitions that were added are noticed
_STOP_S = 10.0


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Passes what the group decides on to the worker, as partition numbers."""

    def __init__(
        self, assigned: Callable[[Sequence[int]], None], revoked: Callable[[Sequence[int]], Awaitable[None]]
    ) -> None:
        self._assigned = assigned
        self._revoked = revoked

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Called after each rebalance with all partitions of this member."""
        self._assigned(sorted(each.partition for each in assigned))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Called before each rebalance with all partitions of this member."""
        if revoked:
            await self._revoked(sorted(each.partition for each in revoked))


class GroupIntake:
    """Implements `runtime.ports.Intake`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id or None,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            max_partition_fetch_bytes=settings.partition_fetch_bytes_max,
            fetch_max_wait_ms=500,
            metadata_max_age_ms=_METADATA_MS,
            **connection_arguments(settings),
        )

    async def start(self, listener: Listener) -> None:
        """Join the group. Raises Unreachable or Misfit."""
        self._consumer.subscribe([self._settings.input_topic], listener=listener)
        try:
            await self._bounded(self._consumer.start(), "joining the consumer group", _JOIN_S)
        except Unreachable as error:
            raise await unconnected(self._settings, error) from error

    async def fault(self) -> WorldError | None:
        """Why the member gets nothing to read, None while it may. aiokafka tries again for ever, and tells nobody."""
        if self._settings.input_topic in self._consumer._client.cluster.unauthorized_topics:  # noqa: SLF001 - as below
            return world_error(TopicAuthorizationFailedError(), "reading the input topic")
        if any(each.connected() for each in self._consumer._client._conns.values()):  # noqa: SLF001 - nothing public tells it
            return None
        fault = await connection_fault(self._settings)
        return None if fault is None else outlasted(fault)

    async def stop(self) -> None:
        """Leave the group, within a bounded time."""
        try:
            await asyncio.wait_for(self._consumer.stop(), _STOP_S)
        except (TimeoutError, KafkaError):
            await self._consumer._client.close()  # noqa: SLF001 - the only way left to close its sockets

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> list[Record]:
        """See `Intake.fetch`."""
        tp = self._partition(partition)
        try:
            fetched = await self._consumer.getmany(tp, timeout_ms=int(timeout_s * 1_000), max_records=records_max)
        except KafkaError as error:
            raise world_error(error, "reading the input topic") from error
        return [
            Record(each.topic, each.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
            for each in fetched.get(tp, ())
        ]

    async def committed(self, partition: int) -> Committed | None:
        """See `Intake.committed`. The public `committed()` leaves out the metadata that comes with the same answer."""
        tp = self._partition(partition)
        fetching = self._consumer._coordinator.fetch_committed_offsets([tp])  # noqa: SLF001
        committed = (await self._bounded(fetching, "reading the committed offset")).get(tp)
        return None if committed is None else Committed(committed.offset, committed.metadata or "")

    async def seek(self, partition: int, next_offset: int | None) -> int:
        """See `Intake.seek`."""
        tp = self._partition(partition)
        beginnings = await self._bounded(self._consumer.beginning_offsets([tp]), "reading the first offset")
        ends = await self._bounded(self._consumer.end_offsets([tp]), "reading the last offset")
        if next_offset is None or not beginnings[tp] <= next_offset <= ends[tp]:
            next_offset = int(beginnings[tp])
        try:
            self._consumer.seek(tp, next_offset)
        except KafkaError as error:
            raise Unreachable(f"partition {partition} is not assigned any more") from error
        return next_offset

    async def lag_records(self, partition: int) -> int | None:
        """See `Intake.lag_records`. Asks no broker: both numbers came with the last fetch."""
        tp = self._partition(partition)
        if tp not in self._consumer.assignment():
            return None
        end = self._consumer.last_stable_offset(tp)
        if end is None or end < 0:
            return None
        try:
            position = await asyncio.wait_for(self._consumer.position(tp), self._timeout_s)
        except (KafkaError, TimeoutError):
            return None
        return max(0, int(end) - int(position))

    async def ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """The offsets after the last stable records, as far as the broker tells. Also of what is not being fetched."""
        tps = [self._partition(partition) for partition in partitions]
        try:
            found = await self._bounded(self._consumer.end_offsets(tps), "reading the last offsets")
        except WorldError:
            return {}
        return {tp.partition: int(end) for tp, end in found.items()}

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit an offset outside of a transaction. Raises Unreachable, also if the partition was lost."""
        offsets = {self._partition(partition): (committed.next_offset, committed.metadata)}
        await self._bounded(self._consumer.commit(offsets), "committing an offset")

    def _partition(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.input_topic, partition)

    async def _bounded(self, doing: Awaitable[Any], what: str, timeout_s: float | None = None) -> Any:
        try:
            return await asyncio.wait_for(doing, timeout_s or self._timeout_s)
        except (KafkaError, TimeoutError, OSError) as error:
            raise world_error(error, what) from error
