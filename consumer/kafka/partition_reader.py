"""Reading partitions without a group, by aiokafka, from given offsets to an end.

An *end* is the last stable offset of a partition, asked for once before its records are read. A partition has been read
when the consumer's position reaches the end. No record says so: the last offsets before it may belong to transaction
markers, to aborted records, or to records that compaction has removed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from consumer.core.record import Record
from consumer.kafka.acls import Grant, allows
from consumer.kafka.connection import connect_to_any, start
from consumer.kafka.errors import USER, call, map_error
from consumer.kafka.patches.internals import client_of
from consumer.kafka.protocol import TopicsRequest
from consumer.kafka.records import close_consumer, standalone_consumer, to_record
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError, UnreadableError

_POLL_MS = 200

Fetched = dict[TopicPartition, list[Any]]
"""What a poll returned: ConsumerRecords of aiokafka, by partition."""


async def read_records(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int] | None,
    doing: str,
    *,
    records_max: int,
    timeout_s: float,
    poll_timeout_s: float | None = None,
) -> AsyncGenerator[Fetched, None]:
    """Read assigned partitions from `starts` to before `ends`; without `ends`, until the generator is closed.

    Yields at most `records_max` records per poll, in order within each partition; an empty dict after 200 ms without a
    record. `timeout_s` bounds every request, and `doing` begins the message of every error. Raises ExternalError:
    RetriableError also if no position moves for `poll_timeout_s` (default `timeout_s`).
    """
    positions = {tp: offset for tp, offset in starts.items() if ends is None or offset < ends[tp]}
    poll_timeout_s = timeout_s if poll_timeout_s is None else poll_timeout_s
    for tp, offset in positions.items():
        consumer.seek(tp, offset)
    moved_s = time.monotonic()
    while positions:
        try:
            fetched = await consumer.getmany(*positions, timeout_ms=_POLL_MS, max_records=records_max)
        except KafkaError as error:
            raise _map_read_error(error, doing) from error
        await asyncio.sleep(0)  # getmany does not suspend while it has records
        if ends is None:
            yield fetched
            continue
        yield {tp: _cut(records, ends[tp]) for tp, records in fetched.items()}
        before, positions = positions, {tp: await call(timeout_s, consumer.position(tp), doing) for tp in positions}
        if positions != before:
            moved_s = time.monotonic()
        positions = {tp: position for tp, position in positions.items() if position < ends[tp]}
        if positions and time.monotonic() - moved_s > poll_timeout_s:
            held_up = ", ".join(f"partition {tp.partition} at {at} of {ends[tp]}" for tp, at in positions.items())
            raise RetriableError(
                f"{doing} stands still: {held_up}: a transaction is open there, or the broker does not answer"
            )


class PartitionReader:
    """A consumer without a group, as an async context manager. Raises ExternalError from every method but leaving."""

    def __init__(self, settings: Settings, *, passes_over: bool = False, **more: Any) -> None:
        self._settings = settings
        self._passes_over = passes_over
        self._timeout_s = settings.tuning.request_timeout_ms / 1_000
        # A position that retention has deleted is an error and not skipped.
        self._consumer = standalone_consumer(settings, auto_offset_reset="none", **more)
        self.client: AIOKafkaClient = client_of(self._consumer)
        """For requests that aiokafka's consumer does not offer."""

    async def __aenter__(self) -> Self:
        await start(self._connect(), self._settings, self._timeout_s, self._stop)
        return self

    async def _connect(self) -> None:
        await self._consumer.start()
        await connect_to_any(self.client)

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def partitions(self, needed: Iterable[Grant]) -> dict[str, int]:
        """How many partitions the topics have. Creates no topic.

        Raises ConfigurationError with every topic that does not exist, or on which an operation is not allowed.
        """
        grants = {grant.name: grant for grant in needed}
        asking = self.client.send(self.client.get_random_node(), TopicsRequest(grants))
        try:
            metadata = await call(self._timeout_s, asking, "asking for topics")
        except NotImplementedError as error:  # older than Kafka 2.8
            raise ConfigurationError("the broker is too old for this version: upgrade it") from error
        counts: dict[str, int] = {}
        problems: list[str] = []
        for code, name, _, _, partitions, allowed, _ in metadata.topics:
            grant = grants[name]
            missing = tuple(operation for operation in grant.operations if code or not allows(allowed, operation))
            if code == UnknownTopicOrPartitionError.errno:
                problems.append(f"topic {name!r} ({grant.setting}) does not exist: check the name, or create it")
            elif code not in (0, TopicAuthorizationFailedError.errno):
                raise RetriableError(f"asking for topic {name!r}: error {code}")
            elif missing:
                problems.append(Grant(grant.resource, name, grant.setting, missing).remedy(self._settings))
            else:
                counts[name] = len(partitions)
        if problems:
            raise ConfigurationError("\n".join(problems))
        return counts

    async def bounds(self, topic: str, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
        """The first offset and the end of each partition."""
        tps = [TopicPartition(topic, number) for number in partitions]
        begins = await call(self._timeout_s, self._consumer.beginning_offsets(tps), "reading the first offsets")
        ends = await call(self._timeout_s, self._consumer.end_offsets(tps), "reading the last offsets")
        return {tp.partition: int(begins[tp]) for tp in tps}, {tp.partition: int(ends[tp]) for tp in tps}

    async def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int] | None, poll_timeout_s: float | None = None
    ) -> AsyncGenerator[list[Record], None]:
        """Read partitions of a topic, as `read_records` does, `Tuning.fetch_records_max` records at a time at most.

        With `passes_over` in place of a batch of the input that is too large comes the record that stands in for it.
        """
        tps = {
            number: TopicPartition(topic, number) for number in starts if ends is None or starts[number] < ends[number]
        }
        if not tps:
            return
        self._consumer.assign(list(tps.values()))
        await call(self._timeout_s, self.client.force_metadata_update(), "asking for topics")
        positions = {tp: starts[number] for number, tp in tps.items()}
        while True:
            reading = read_records(
                self._consumer,
                positions,
                None if ends is None else {tp: ends[number] for number, tp in tps.items()},
                f"reading {topic!r}",
                records_max=self._settings.tuning.fetch_records_max,
                timeout_s=self._timeout_s,
                poll_timeout_s=poll_timeout_s,
            )
            try:
                async with aclosing(reading) as polls:
                    async for fetched in polls:
                        yield [to_record(record) for records in fetched.values() for record in records]
                        positions |= {tp: records[-1].offset + 1 for tp, records in fetched.items() if records}
            except UnreadableError as error:
                if not (self._passes_over and topic == self._settings.input_topic):
                    raise
                yield [error.stand_in]
                positions[TopicPartition(topic, error.stand_in.partition)] = error.stand_in.next_offset
            else:
                return

    async def _stop(self) -> None:
        await close_consumer(self._consumer)


def _cut(records: list[Any], end: int) -> list[Any]:
    """The records before an offset. Almost always all are, so that only the last is looked at."""
    return records if records[-1].offset < end else [record for record in records if record.offset < end]


def _map_read_error(error: KafkaError, doing: str) -> ExternalError:
    if isinstance(error, TopicAuthorizationFailedError):
        kind = type(error).__name__
        return ConfigurationError(f"{doing}: a permission is missing: grant {USER} Read on this topic ({kind})")
    if isinstance(error, OffsetOutOfRangeError):
        return RetriableError(f"{doing}: retention deleted records just now: start again")
    return map_error(error, doing)
