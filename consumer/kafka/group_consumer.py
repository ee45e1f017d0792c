"""The group member that reads the input topic, by aiokafka.

Facts of aiokafka 0.14 that shape this module:

1. `getmany` hands out records while `on_partitions_assigned` is still awaited. So every fetch names its partition, and
   a lane seeks before its first fetch.
2. It swallows exceptions of the callbacks. So the callbacks only record.
3. `stop()` calls no callback and may hang. So it is bounded.
4. Rebalances are eager: every member gives up all its partitions.
5. `committed()` may return a wrong result (see `coordinator`). So its response is read here.
6. A member that fetches nothing for `max_poll_interval_ms` leaves the group and cannot come back, though it may have
   nothing to fetch. So the worker calls `alive`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from aiokafka.protocol.commit import OffsetFetchRequest

from consumer.core.record import Record
from consumer.kafka.connection import connection_arguments, diagnose_connection, find_connection_error
from consumer.kafka.coordinator import parse_committed
from consumer.kafka.errors import as_retriable, call, map_error
from consumer.kafka.group_view import advertising
from consumer.kafka.membership import Membership
from consumer.kafka.offsets import Offsets, find_begins, find_ends, find_topic_id, retry
from consumer.kafka.patches.internals import client_of, find_connected, is_connected, mark_polled
from consumer.kafka.patches.whole_batches import WholeBatches
from consumer.kafka.protocol import TopicsRequest
from consumer.kafka.records import find_candidates, to_record
from consumer.kafka.timeouts import stop_client, wait
from consumer.settings import Settings
from consumer.worker.ports import Committed, ExternalError, RetriableError, UnreadableError

if TYPE_CHECKING:
    from consumer.engine._native import FetchedRecords

_JOIN_S = 60.0
_METADATA_MS = 30_000
"""How long it may take to notice partitions that were added."""
_STOP_S = 10.0
_STALE_S, _STALE_POLL_S = 10.0, 0.5
"""How long, and how often, the leader is asked again while the partition seems to end before the committed offset."""
_LEADERS_S = 5.0
_ATTEMPTS = 2
"""Of requests to a leader: the last attempt may take a whole request timeout of its own."""


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Passes assignments on to the worker, as partition numbers."""

    def __init__(
        self, assigned: Callable[[Sequence[int]], None], revoked: Callable[[Sequence[int]], Awaitable[None]]
    ) -> None:
        self._assigned = assigned
        self._revoked = revoked

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Called after each rebalance with all partitions of this member."""
        self._assigned(sorted(tp.partition for tp in assigned))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Called before each rebalance with all partitions of this member."""
        if revoked:
            await self._revoked(sorted(tp.partition for tp in revoked))


class GroupConsumer:
    """Implements `worker.ports.InputConsumer`."""

    def __init__(self, settings: Settings, new_records: "Callable[[str, int], FetchedRecords] | None" = None) -> None:
        """`new_records`, if given, makes what holds fetched records: see `WholeBatches`."""
        self.address = ""
        """That of the query port, for the other members of the group; empty tells none. Set before the start."""
        self._settings = settings
        self._whole = None if new_records is None else WholeBatches(new_records, settings.fetch_records_max)
        self._timeout_s = settings.tuning.request_timeout_ms / 1_000
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id or None,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            enable_auto_commit=False,
            auto_offset_reset="none",  # the lane gets an error if its position is gone, and opens again
            isolation_level="read_committed",
            partition_assignment_strategy=(advertising(lambda: self.address),),
            max_partition_fetch_bytes=settings.tuning.partition_fetch_bytes_max,
            fetch_max_wait_ms=500,
            key_deserializer=self._whole,
            metadata_max_age_ms=_METADATA_MS,
            **connection_arguments(settings),
        )
        self._client = client_of(self._consumer)
        self._membership = Membership(settings, self._consumer)
        self._has_known_topic = False
        self._newest_key: bytes | None = None
        """The last key of the records that were fetched last, if they have one."""

    async def start(self, listener: Listener) -> None:
        """Join the group. Raises RetriableError or ConfigurationError."""
        self._consumer.subscribe([self._settings.input_topic], listener=listener)
        try:
            await call(_JOIN_S, self._consumer.start(), "joining the consumer group")
        except RetriableError as error:
            raise await diagnose_connection(self._settings, error) from error

    async def fault(self) -> ExternalError | None:
        """Why the member cannot read, None while it can. aiokafka tries again for ever and reports nothing."""
        if self._settings.input_topic in self._client.cluster.unauthorized_topics:
            return map_error(TopicAuthorizationFailedError(), "reading the input topic")
        if error := self._membership.find_error():
            return error
        if is_connected(self._client):
            return self._find_missing_topic()
        connection_error = await find_connection_error(self._settings)
        return None if connection_error is None else as_retriable(connection_error)

    def _find_missing_topic(self) -> ExternalError | None:
        """An error if the input topic is gone. The member has no partitions then, until its metadata is read again."""
        if self.partitions() is not None:
            self._has_known_topic = True
        elif self._has_known_topic:
            self._client.force_metadata_update()
            return map_error(UnknownTopicOrPartitionError(), "reading the input topic")
        return None

    def identity(self) -> tuple[str, int]:
        """See `Membership.identity`."""
        return self._membership.identity()

    async def stop(self) -> None:
        """Leave the group, within a bounded time."""
        await stop_client(self._consumer.stop(), self._client, _STOP_S)

    def alive(self) -> None:
        """Keep the member in the group though it fetches nothing: the worker makes progress."""
        mark_polled(self._consumer)

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> Sequence[Record]:
        """See `InputConsumer.fetch`."""
        records = await self._fetch(partition, records_max, timeout_s)
        if records:
            self._newest_key = records[len(records) - 1].key or self._newest_key
        return records

    async def _fetch(self, partition: int, records_max: int, timeout_s: float) -> Sequence[Record]:
        tp, most = self._partition(partition), records_max
        if self._whole is not None:
            self._whole.records_max, most = records_max, 1
        try:
            fetched = await self._consumer.getmany(tp, timeout_ms=int(timeout_s * 1_000), max_records=most)
        except KafkaError as error:
            mapped = map_error(error, "reading the input topic")
            if isinstance(mapped, UnreadableError) and self._settings.oversized_batches == "dead_letter":
                self._consumer.seek(tp, mapped.stand_in.next_offset)
                return [mapped.stand_in]
            raise mapped from error
        records = fetched.get(tp, ())
        if self._whole is not None and records:
            (records,) = records
            if not isinstance(records, list):
                return records  # type: ignore[no-any-return]  # aiokafka has no types
        return [to_record(record) for record in records]

    async def confirm_membership(self) -> None:
        """See `InputConsumer.confirm_membership`."""
        await call(self._timeout_s, self._membership.confirm(), "asking the group for the membership")

    async def committed(self, partition: int) -> Committed | None:
        """See `InputConsumer.committed`."""
        return await call(self._timeout_s, self._find_committed(partition), "reading the committed offset")

    async def _find_committed(self, partition: int) -> Committed | None:
        topic = self._settings.input_topic
        response = await self._membership.ask(OffsetFetchRequest(self._settings.group_id, [(topic, [partition])]))
        return parse_committed(response, topic, [partition])[partition]

    async def topic_id(self) -> str:
        """See `InputConsumer.topic_id`."""
        topic = self._settings.input_topic
        finding = retry(self._client, lambda: find_topic_id(self._client, topic), self._timeout_s)
        return await call(_ATTEMPTS * self._timeout_s, finding, "asking for the id of the input topic")

    async def seek(self, partition: int, next_offset: int | None) -> int:
        """See `InputConsumer.seek`."""
        tp = self._partition(partition)
        begin = await self._ask_leader(find_begins, tp, "reading the first offset")
        if next_offset is not None and next_offset > await self._find_end(tp):
            next_offset = await self._wait_for_end(tp, next_offset)
        if next_offset is None or next_offset < begin:
            next_offset = begin
        try:
            self._consumer.seek(tp, next_offset)
        except KafkaError as error:
            raise RetriableError(f"partition {partition} is not assigned any more") from error
        return next_offset

    async def _wait_for_end(self, tp: TopicPartition, next_offset: int) -> int | None:
        """Wait for a partition to reach an offset; returns the offset, or None for the beginning if it does not.

        A leader that was suspended and replaced reports an older end until it learns that it was.
        """
        until_s = time.monotonic() + _STALE_S
        while time.monotonic() < until_s:
            await asyncio.sleep(_STALE_POLL_S)
            await call(self._timeout_s, self._client.force_metadata_update(), "asking for leaders")
            if next_offset <= await self._find_end(tp):
                return next_offset
        return None

    async def _find_end(self, tp: TopicPartition) -> int:
        """The end, uncommitted records included: an operator may have reset the group's offset to one of those."""
        return await self._ask_leader(find_ends, tp, "reading the last offset")

    async def _ask_leader(self, find: Callable[..., Awaitable[Offsets]], tp: TopicPartition, doing: str) -> int:
        finding = retry(self._client, lambda: find(self._client, [tp]), self._timeout_s)
        return (await call(_ATTEMPTS * self._timeout_s, finding, doing))[tp]

    async def lag_records(self, partition: int) -> int | None:
        """See `InputConsumer.lag_records`. Asks no broker: both numbers came with the last fetch."""
        tp = self._partition(partition)
        if tp not in self._consumer.assignment():
            return None
        end = self._consumer.highwater(tp)
        if end is None or end < 0:
            return None
        position = await self.position(partition)
        return None if position is None else max(0, int(end) - position)

    async def position(self, partition: int) -> int | None:
        """See `InputConsumer.position`."""
        try:
            return int(await wait(self._timeout_s, self._consumer.position(self._partition(partition))))
        except (KafkaError, TimeoutError):
            return None

    def find_candidates(self, conversation_id: str) -> list[int] | None:
        """The partitions in which the topic may have a conversation; None while the topic is not known yet.

        How the relay spells ids is known from the newest records.
        """
        partitions = self.partitions()
        return None if partitions is None else find_candidates(conversation_id, self._newest_key, partitions)

    def partitions(self) -> int | None:
        """How many partitions the input topic has, by the last metadata; None if not known yet."""
        partitions = self._consumer.partitions_for_topic(self._settings.input_topic)
        return len(partitions) if partitions else None

    async def offline_partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions of each topic have no leader; empty if no broker answers.

        Asks a broker that the member is connected to, since connecting to another would block its own connections. A
        connection to a coordinator is not used, since a rebalance blocks the requests behind it.
        """
        connected = find_connected(self._client)
        if not connected:
            return {}
        node = random.choice(connected)  # noqa: S311 - no secret
        try:
            metadata = await wait(_LEADERS_S, self._client.send(node, TopicsRequest(topics)))
        except (KafkaError, NotImplementedError, TimeoutError, OSError):
            return {}
        return {
            name: sum(leader < 0 for _, _, leader, *_ in partitions)
            for error_code, name, _, _, partitions, *_ in metadata.topics
            if not error_code
        }

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit an offset outside of a transaction. Raises RetriableError, also if the partition was lost."""
        offsets = {self._partition(partition): (committed.next_offset, committed.metadata)}
        await call(self._timeout_s, self._consumer.commit(offsets), "committing an offset")

    def _partition(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.input_topic, partition)
