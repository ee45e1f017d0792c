"""How long 16 lanes with state are closed when a second worker joins and leaves, and how long a worker takes to drain.

Records are written meanwhile. A rebalance lasts from the revocation until the last lane is open again, on either
worker; a drain lasts from SIGTERM to the end of the process.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import islice

from consumer.settings import Settings
from consumer.simulator.traffic import records
from consumer.tools.traffic_writer import TrafficWriter
from tests.benchmarks import states
from tests.benchmarks.options import Line, Options
from tests.benchmarks.restore import time_logged_s
from tests.benchmarks.scratch import STEP_S, Scratch, end, until, within_s
from tests.benchmarks.throughput import recent
from tests.live.worker_process import WorkerProcess

_LANES = 16
_PER_S = 500
_TICK_S = 0.05


async def measure(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    settings, count = scratch.settings(), options.conversations
    await scratch.create(settings, _LANES)
    await scratch.write(states.topic(settings), states.drafts(states.templates(), count), count)
    await scratch.commit_beginning(settings, _LANES)
    async with scratch.workers(settings) as pipeline, asyncio.TaskGroup() as group:
        first = await pipeline.start_worker()
        await until(lambda: len(first.events("lane.opened")) == _LANES, first, within_s(count))
        feeding = group.create_task(_write_steadily(settings))
        second = await pipeline.start_worker()
        came_s = await _wait_rebalanced(first, (first, second), 1)
        began_s = time.monotonic()
        await end(second)
        second_drained_s = time.monotonic() - began_s
        went_s = await _wait_rebalanced(first, (first,), 2)
        began_s = time.monotonic()
        await end(first)
        drained_s = time.monotonic() - began_s
        feeding.cancel()
    common: Line = {"lanes": _LANES, "conversations": count}
    yield {"name": "rebalance", "when": "a second worker comes", **common, "seconds": round(came_s, 2)}
    yield {"name": "rebalance", "when": "it goes", **common, "seconds": round(went_s, 2)}
    half: Line = {**common, "lanes": _LANES // 2}
    yield {"name": "drain", **half, "seconds": round(second_drained_s, 2)}
    yield {"name": "drain", **common, "seconds": round(drained_s, 2)}


async def _wait_rebalanced(first: WorkerProcess, owners: tuple[WorkerProcess, ...], number: int) -> float:
    """Wait until all lanes are open after the first worker's nth revocation; returns the seconds in between."""
    await until(lambda: len(first.events("group.revoked")) >= number, first, STEP_S)
    revoked_s = time_logged_s(first.events("group.revoked")[number - 1])

    def time_opening_s() -> dict[int, float]:
        lines = [line for owner in owners for line in owner.events("lane.opened")]
        return {line["partition"]: time_logged_s(line) for line in lines if time_logged_s(line) > revoked_s}

    await until(lambda: len(time_opening_s()) == _LANES, first, STEP_S * 2)
    return max(time_opening_s().values()) - revoked_s


async def _write_steadily(settings: Settings) -> None:
    """Write records at a steady pace until cancelled."""
    began_s, written, drafts = time.monotonic(), 0, records(recent(records_per_s=_PER_S))
    async with TrafficWriter(settings) as writer:
        while True:
            written += await writer.write(islice(drafts, int((time.monotonic() - began_s) * _PER_S) - written))
            await asyncio.sleep(_TICK_S)
