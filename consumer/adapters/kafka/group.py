"""The group member that reads the input topic, by aiokafka.

Facts of aiokafka 0.14 that shape it: `getmany` hands out records while `on_partitions_assigned` is still awaited, so
every fetch names its partition and a lane seeks before its first; exceptions of the callbacks are swallowed, so they
only record; `stop()` calls no callback and may hang, so it is bounded; rebalances are eager; `committed()` errs (see
`coordinator`), so its answer is read here; a member that fetches nothing for `max_poll_interval_ms` leaves the group
and cannot come back, though it may have nothing to fetch: no partition, only blocked lanes, a long restore. So the
worker says that it is alive.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.commit import OffsetFetchRequest

from consumer.adapters.kafka.bounds import stopped, within
from consumer.adapters.kafka.connection import connection_arguments, connection_fault, unconnected
from consumer.adapters.kafka.coordinator import committed_of, error_codes
from consumer.adapters.kafka.faults import answered, outlasted, world_error
from consumer.adapters.kafka.membership import COORDINATOR_MOVED, Membership
from consumer.adapters.kafka.offsets import Offsets, find_begins, find_ends, find_topic_id, patiently
from consumer.adapters.kafka.records import partition_of, record_of
from consumer.adapters.kafka.requests import TopicsRequest
from consumer.core.record import Record
from consumer.runtime.ports import Committed, Unreachable, WorldError
from consumer.runtime.settings import Settings

_JOIN_S = 60.0
_METADATA_MS = 30_000  # within which partitions that were added are noticed
_STOP_S = 10.0
_STALE_S, _STALE_POLL_S = 10.0, 0.5
"""How long, and how often, an end of the partition before the committed offset is asked for again."""
_LEADERS_S = 5.0
_ASKS = 2


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
            auto_offset_reset="none",  # a position that is gone is told to the lane, which opens anew
            isolation_level="read_committed",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            max_partition_fetch_bytes=settings.partition_fetch_bytes_max,
            fetch_max_wait_ms=500,
            metadata_max_age_ms=_METADATA_MS,
            **connection_arguments(settings),
        )
        self._membership = Membership(settings, self._consumer)

    async def start(self, listener: Listener) -> None:
        """Join the group. Raises Unreachable or Misfit."""
        self._consumer.subscribe([self._settings.input_topic], listener=listener)
        try:
            await answered(_JOIN_S, self._consumer.start(), "joining the consumer group")
        except Unreachable as error:
            raise await unconnected(self._settings, error) from error

    async def fault(self) -> WorldError | None:
        """Why the member gets nothing to read, None while it may. aiokafka tries again for ever, and tells nobody."""
        if self._settings.input_topic in self._consumer._client.cluster.unauthorized_topics:  # noqa: SLF001 - as below
            return world_error(TopicAuthorizationFailedError(), "reading the input topic")
        if fault := self._membership.fault():
            return fault
        if any(each.connected() for each in self._consumer._client._conns.values()):  # noqa: SLF001 - nothing public tells it
            return None
        disconnected = await connection_fault(self._settings)
        return None if disconnected is None else outlasted(disconnected)

    async def stop(self) -> None:
        """Leave the group, within a bounded time."""
        await stopped(self._consumer.stop(), self._consumer._client, _STOP_S)  # noqa: SLF001 - nothing public gives it

    def alive(self) -> None:
        """Say that the worker makes progress, which aiokafka only takes from the time of the last fetch."""
        self._consumer._subscription._last_fetch_ended = time.monotonic()  # noqa: SLF001

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> list[Record]:
        """See `Intake.fetch`."""
        tp = self._partition(partition)
        try:
            fetched = await self._consumer.getmany(tp, timeout_ms=int(timeout_s * 1_000), max_records=records_max)
        except KafkaError as error:
            raise world_error(error, "reading the input topic") from error
        return [record_of(each) for each in fetched.get(tp, ())]

    async def confirm_membership(self) -> None:
        """See `Intake.confirm_membership`."""
        await self._bounded(self._membership.confirm(), "asking the group for the membership")

    async def committed(self, partition: int) -> Committed | None:
        """See `Intake.committed`."""
        found: Committed | None = await self._bounded(self._ask_committed(partition), "reading the committed offset")
        return found

    async def _ask_committed(self, partition: int) -> Committed | None:
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the only one that knows which broker to ask
        await coordinator.ensure_coordinator_known()
        request = OffsetFetchRequest(self._settings.group_id, [(self._settings.input_topic, [partition])])
        answer = await coordinator._send_req(request)  # noqa: SLF001
        if error_codes(answer) & COORDINATOR_MOVED:
            coordinator.coordinator_dead()
        return committed_of(answer, self._settings.input_topic, [partition])[partition]

    async def topic_id(self) -> str:
        """See `Intake.topic_id`."""
        client, topic = self._consumer._client, self._settings.input_topic  # noqa: SLF001 - as below
        asking = patiently(client, lambda: find_topic_id(client, topic), self._timeout_s)
        found: str = await answered(_ASKS * self._timeout_s, asking, "asking for the id of the input topic")
        return found

    async def seek(self, partition: int, next_offset: int | None) -> int:
        """See `Intake.seek`."""
        tp = self._partition(partition)
        begin = await self._ask_leader(find_begins, tp, "reading the first offset")
        if next_offset is not None and next_offset > await self._ask_end(tp):
            next_offset = await self._past_the_end(tp, next_offset)
        if next_offset is None or next_offset < begin:
            next_offset = begin
        try:
            self._consumer.seek(tp, next_offset)
        except KafkaError as error:
            raise Unreachable(f"partition {partition} is not assigned any more") from error
        return next_offset

    async def _past_the_end(self, tp: TopicPartition, next_offset: int) -> int | None:
        """An offset that its partition does not reach, or None for the beginning once that is beyond doubt.

        A leader that was suspended and has been replaced answers with an older end, until it learns of that.
        """
        until_s = time.monotonic() + _STALE_S
        while time.monotonic() < until_s:
            await asyncio.sleep(_STALE_POLL_S)
            await self._bounded(self._consumer._client.force_metadata_update(), "asking for leaders")  # noqa: SLF001 - nothing public does
            if next_offset <= await self._ask_end(tp):
                return next_offset
        return None

    async def _ask_end(self, tp: TopicPartition) -> int:
        """The end with what is not committed yet, among which whoever resets offsets may have put one."""
        return await self._ask_leader(find_ends, tp, "reading the last offset")

    async def _ask_leader(self, find: Callable[..., Awaitable[Offsets]], tp: TopicPartition, what: str) -> int:
        client = self._consumer._client  # noqa: SLF001 - nothing public asks so
        asking = patiently(client, lambda: find(client, [tp]), self._timeout_s)
        found: Offsets = await answered(_ASKS * self._timeout_s, asking, what)  # the last request may take its own time
        return found[tp]

    async def lag_records(self, partition: int) -> int | None:
        """See `Intake.lag_records`. Asks no broker: both numbers came with the last fetch."""
        tp = self._partition(partition)
        if tp not in self._consumer.assignment():
            return None
        end = self._consumer.highwater(tp)
        if end is None or end < 0:
            return None
        position = await self.position(partition)
        return None if position is None else max(0, int(end) - position)

    async def position(self, partition: int) -> int | None:
        """See `Intake.position`."""
        try:
            return int(await within(self._timeout_s, self._consumer.position(self._partition(partition))))
        except (KafkaError, TimeoutError):
            return None

    def partition_of(self, key: bytes) -> int | None:
        """The partition in which Kafka's own partitioner puts a key; None while the topic is not known yet."""
        partitions = self.partitions()
        return None if partitions is None else partition_of(key, partitions)

    def partitions(self) -> int | None:
        """Partitions of the input topic as of the last metadata; None if not known yet."""
        found = self._consumer.partitions_for_topic(self._settings.input_topic)
        return len(found) if found else None

    async def offline_partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions of each topic have no leader, of those topics that the newest metadata has.

        Only a broker is asked with which there is a connection: to make one would keep the member from making others.
        Connections to coordinators are left alone, since a rebalance holds up whatever comes after it.
        """
        client = self._consumer._client  # noqa: SLF001 - aiokafka's own metadata knows the input topic only
        connected = [
            node
            for (node, group), connection in client._conns.items()  # noqa: SLF001
            if group == ConnectionGroup.DEFAULT and connection.connected()
        ]
        if not connected:
            return {}
        request = TopicsRequest(topics)
        try:
            answer = await within(_LEADERS_S, client.send(random.choice(connected), request))  # noqa: S311 - no secret
        except (KafkaError, NotImplementedError, TimeoutError, OSError):
            return {}
        return {
            name: sum(leader < 0 for _, _, leader, *_ in partitions)
            for error_code, name, _, _, partitions, *_ in answer.topics
            if not error_code
        }

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit an offset outside of a transaction. Raises Unreachable, also if the partition was lost."""
        offsets = {self._partition(partition): (committed.next_offset, committed.metadata)}
        await self._bounded(self._consumer.commit(offsets), "committing an offset")

    def _partition(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.input_topic, partition)

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        return await answered(self._timeout_s, doing, what)
