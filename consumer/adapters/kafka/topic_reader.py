"""Reading partitions of a topic from here to there, by aiokafka, without a group.

Done means `position() >= end`, the end asked with read_committed: transaction markers and aborted records have offsets
of their own, and no record comes to tell that they were passed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from consumer.adapters.kafka.connection import start
from consumer.adapters.kafka.faults import USER, answered, world_error
from consumer.adapters.kafka.nodes import reach
from consumer.adapters.kafka.permissions import Grant, allows
from consumer.adapters.kafka.records import record_of, standalone_consumer, stop
from consumer.adapters.kafka.requests import TopicsRequest
from consumer.core.record import Record
from consumer.runtime.ports import Misfit, Unreachable
from consumer.runtime.settings import Settings

_POLL_MS = 200


class TopicReader:
    """A consumer without a group, as an async context manager. Raises WorldError from every method but leaving."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        # A position that retention has deleted is told, not passed over.
        self._consumer = standalone_consumer(settings, auto_offset_reset="none", **more)

    async def __aenter__(self) -> Self:
        await start(self._connect(), self._settings, self._timeout_s, self._stop)
        return self

    async def _connect(self) -> None:
        await self._consumer.start()
        await reach(self.client)

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def client(self) -> Any:
        """The connection to the cluster, for requests that aiokafka's consumer does not make."""
        return self._consumer._client  # noqa: SLF001 - nothing public gives it

    async def partitions(self, needed: Iterable[Grant]) -> dict[str, int]:
        """How many partitions the topics have. Makes none; raises Misfit with all that lack or may not be used so."""
        grants = {each.name: each for each in needed}
        asked = self.client.send(self.client.get_random_node(), TopicsRequest(grants))
        try:
            answer = await self._bounded(asked, "asking for topics")
        except NotImplementedError as error:  # no released broker that has transactions and matters here is so old
            raise Misfit("the broker is too old for this version: upgrade it") from error
        found: dict[str, int] = {}
        problems: list[str] = []
        for code, name, _, _, partitions, operations, _ in answer.topics:
            grant = grants[name]
            missing = tuple(each for each in grant.operations if code or not allows(operations, each))
            if code == UnknownTopicOrPartitionError.errno:
                problems.append(f"topic {name!r} ({grant.setting}) does not exist: check the name, or create it")
            elif code not in (0, TopicAuthorizationFailedError.errno):
                raise Unreachable(f"asking for topic {name!r}: error {code}")
            elif missing:
                problems.append(Grant(grant.resource, name, grant.setting, missing).remedy(self._settings))
            else:
                found[name] = len(partitions)
        if problems:
            raise Misfit("\n".join(problems))
        return found

    async def bounds(self, topic: str, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
        """The first offset of each partition, and the one after the last stable record."""
        tps = [TopicPartition(topic, each) for each in partitions]
        begins = await self._bounded(self._consumer.beginning_offsets(tps), "reading the first offsets")
        ends = await self._bounded(self._consumer.end_offsets(tps), "reading the last offsets")
        return {tp.partition: int(at) for tp, at in begins.items()}, {tp.partition: int(at) for tp, at in ends.items()}

    async def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int] | None, patience_s: float | None = None
    ) -> AsyncGenerator[list[Record], None]:
        """Records from `starts` to before `ends`, for ever without `ends`; in order within each partition.

        An empty list says that nothing came for a while. At most CC_FETCH_RECORDS_MAX at a time. Raises Unreachable
        if nothing moves for `patience_s`, or for as long as a request may take, and there should be something.
        """
        tps = {
            number: TopicPartition(topic, number) for number, at in starts.items() if ends is None or at < ends[number]
        }
        if not tps:
            return
        patience_s = self._timeout_s if patience_s is None else patience_s
        self._consumer.assign(list(tps.values()))
        await self._bounded(self.client.force_metadata_update(), "asking for topics")
        for number, tp in tps.items():
            self._consumer.seek(tp, starts[number])
        moved_s, before = time.monotonic(), dict(starts)
        while tps:
            fetched = await self._fetch(topic, list(tps.values()))
            records = [
                record_of(each)
                for some in fetched.values()
                for each in some
                if ends is None or each.offset < ends[each.partition]
            ]
            yield records
            if ends is None:
                continue
            at = {number: await self._position(tp) for number, tp in tps.items()}
            tps = {number: tp for number, tp in tps.items() if at[number] < ends[number]}
            if any(at[number] > before[number] for number in at):
                moved_s, before = time.monotonic(), before | at
            elif time.monotonic() - moved_s > patience_s:
                places = ", ".join(f"partition {number} at {at[number]} of {ends[number]}" for number in sorted(tps))
                raise Unreachable(
                    f"reading topic {topic!r} stands still: {places}: a transaction is open there, or the broker does "
                    f"not answer"
                )

    async def _fetch(self, topic: str, tps: list[TopicPartition]) -> dict[Any, list[Any]]:
        records_max = self._settings.fetch_records_max
        try:
            fetched = await self._consumer.getmany(*tps, timeout_ms=_POLL_MS, max_records=records_max)
        except TopicAuthorizationFailedError as error:
            raise Misfit(
                f"reading {topic!r}: a permission is missing: grant {USER} Read on this topic ({type(error).__name__})"
            ) from error
        except OffsetOutOfRangeError as error:
            raise Unreachable(f"reading {topic!r}: retention deleted records just now: start again") from error
        except KafkaError as error:
            raise world_error(error, f"reading {topic!r}") from error
        await asyncio.sleep(0)  # getmany does not suspend while it has records
        return dict(fetched)

    async def _position(self, tp: TopicPartition) -> int:
        return int(await self._bounded(self._consumer.position(tp), "reading records"))

    async def _stop(self) -> None:
        await stop(self._consumer)

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        return await answered(self._timeout_s, doing, what)
