"""A worker whose lanes are open on the brokers of `tests.fakes`, for those that read what it has."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.runtime.worker import Worker
from tests.fakes import Broker, until, world_of
from tests.runtime.scenes import settings_of


@asynccontextmanager
async def working(
    records: Iterable[Record], partitions: tuple[int, ...] = (0,), **changed: Any
) -> AsyncIterator[Worker]:
    """A worker that owns the partitions and has committed all of their records."""
    placed = list(records)
    broker = Broker(placed)
    worker = Worker(settings_of(commit_interval_ms=1, **changed), world_of(broker))
    worker.assigned(partitions)
    ends = {each.partition: each.next_offset for each in placed}
    await until(
        lambda: all(
            worker.lanes[partition].phase == "running"
            and (worker.lanes[partition].committed_offset or 0) >= ends.get(partition, 0)
            for partition in partitions
        )
    )
    broker.fetch_waits = True
    try:
        yield worker
    finally:
        await worker.drain()


def in_partition(record: Record, partition: int) -> Record:
    return msgspec.structs.replace(record, partition=partition)
