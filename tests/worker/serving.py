"""A worker with open lanes on the broker of `tests.fakes`, for tests of the queries over its states."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.worker.worker import Worker
from tests.fakes import Broker, lane_context, until
from tests.worker.scenes import settings_of


@asynccontextmanager
async def run_worker(
    records: Iterable[Record], partitions: tuple[int, ...] = (0,), **changed: Any
) -> AsyncIterator[Worker]:
    """A worker that owns the partitions and has committed all of their records."""
    placed = list(records)
    broker = Broker(placed)
    settings = settings_of(commit_interval_ms=1, **changed)
    worker = Worker(settings, lane_context(broker, settings))
    worker.assigned(partitions)
    ends = {record.partition: record.next_offset for record in placed}
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


def set_partition(record: Record, partition: int) -> Record:
    return msgspec.structs.replace(record, partition=partition)
