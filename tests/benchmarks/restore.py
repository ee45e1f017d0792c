"""The cost of stored conversations: the time to restore them, and their memory.

`restore` measures both while `python -m consumer run` restores states from a real Kafka. `churn` then updates random
conversations for some minutes and measures whether memory grows.
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from consumer.settings import Settings
from consumer.simulator.traffic import Draft
from consumer.tools.traffic_writer import TrafficWriter
from tests.benchmarks import states
from tests.benchmarks.options import Line, Options
from tests.benchmarks.scratch import STEP_S, Scratch, Spent, end, until, within_s
from tests.live.harness import PARTITIONS, Pipeline
from tests.live.worker_process import WorkerProcess

_LOOK_S = 15.0
_TICK_S = 0.1


async def restore(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    made, count = states.templates(), options.conversations
    settings, value_bytes = await _write_states(scratch, made, count)
    async with scratch.workers(scratch.settings()) as pipeline:
        await scratch.create(pipeline.settings, PARTITIONS)
        worker = await pipeline.start_worker()
        await _wait_restored(worker, 0)
        idle_bytes = worker.resident_bytes()
        await end(worker)
    async with scratch.workers(settings) as pipeline:
        worker = await pipeline.start_worker()
        seconds, cpu_s = await _wait_restored(worker, count)
        known = worker.resident_bytes() - idle_bytes
        await end(worker)
    yield {
        "name": "restore",
        "conversations": count,
        "conversations_per_s": round(count / seconds),
        "conversations_per_cpu_s": round(count / cpu_s),
        "value_bytes": round(value_bytes),
        "resident_bytes_per_conversation": round(known / count),
        "overhead_bytes_per_conversation": round(known / count - value_bytes),
    }


async def churn(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    made, count = states.templates(), options.conversations
    settings, _ = await _write_states(scratch, made, count)
    async with scratch.workers(settings) as pipeline:
        worker = await pipeline.start_worker()
        await _wait_restored(worker, count)
        updates = states.updates(made, count, random.Random(1))
        resident = await _update_conversations(pipeline, worker, updates, options.churn_minutes, options.updates_per_s)
        await end(worker)
    yield {
        "name": "churn",
        "minutes": options.churn_minutes,
        "first_bytes": resident[0],
        "last_bytes": resident[-1],
        "most_bytes": max(resident),
        "of_first": round(resident[-1] / resident[0], 3),
    }


async def _write_states(scratch: Scratch, made: list[states.Template], count: int) -> tuple[Settings, float]:
    """Write a state topic of so many conversations; returns its settings and the mean bytes of a state."""
    settings = scratch.settings()
    await scratch.create(settings, PARTITIONS)
    await scratch.write(states.topic(settings), states.drafts(made, count), count)
    await scratch.commit_beginning(settings, PARTITIONS)
    return settings, statistics.mean(len(made[number % len(made)].state) for number in range(count))


async def _wait_restored(worker: WorkerProcess, count: int) -> tuple[float, float]:
    """Wait until all lanes are open; returns the seconds, and roughly the CPU seconds, since their assignment."""
    assigned = await worker.logged("group.assigned", STEP_S)
    start = Spent.by(worker)
    await until(lambda: len(worker.events("lane.opened")) == PARTITIONS, worker, STEP_S + within_s(count))
    spent = Spent.by(worker).since(start)
    return max(map(time_logged_s, worker.events("lane.opened"))) - time_logged_s(assigned), spent.cpu_s or spent.seconds


def time_logged_s(line: dict[str, Any]) -> float:
    """The timestamp of a log line, in seconds since the epoch."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


async def _update_conversations(
    pipeline: Pipeline, worker: WorkerProcess, updates: Iterator[Draft], minutes: float, per_s: int
) -> list[int]:
    """Write updates at a steady rate; returns samples of the worker's resident bytes."""
    began_s, written, resident, look_s = time.monotonic(), 0, [worker.resident_bytes()], 0.0
    async with TrafficWriter(pipeline.settings) as writer:
        while (elapsed_s := time.monotonic() - began_s) < minutes * 60:
            due = int(elapsed_s * per_s) - written
            written += await writer.write(islice(updates, due))
            await writer.flush()
            if elapsed_s - look_s >= _LOOK_S:
                look_s = elapsed_s
                resident.append(worker.resident_bytes())
            await asyncio.sleep(_TICK_S)
    await pipeline.caught_up(STEP_S * 4)
    resident.append(worker.resident_bytes())
    sums = await worker.metrics()
    print(f"churn: {written} updates written, {sums['conversation_records_total']:.0f} consumed", file=sys.stderr)
    return resident
