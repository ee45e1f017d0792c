"""A worker that dies inside the native engine leaves nothing half done: the next one goes on exactly once."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import replace

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from tests.engines import engine_class
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName
from tests.live.crashing import INSIDE, NATIVE_STEPS
from tests.live.harness import Pipeline, now_ms
from tests.live.worker_process import WorkerProcess

COUNT = 2_000
FAILING = ("denied", "before-send_batch", "1")
"""What makes a worker roll back."""
ROOMS_BYTES = (0, 1 << 18, 1 << 20, 1 << 22)
"""What a worker may still allocate."""


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """A static member takes its partitions over from its predecessor at once."""
    engine_class("native")
    pipeline = Pipeline(kafka, unique_name("n"), tmp_path, engine="native", group_instance_id="one")
    await pipeline.create()
    yield pipeline
    await pipeline.close()


async def write(pipeline: Pipeline, count: int) -> None:
    """Records of which every tenth is declined and applied in Python, since it was republished."""
    drafts = list(islice(records(Traffic(seed=5, start_ms=now_ms(), conversations=100)), count))
    async with TrafficWriter(pipeline.settings) as writer:
        await writer.write([republish(draft) if number % 10 == 0 else draft for number, draft in enumerate(drafts)])
        await writer.flush()


def republish(draft: Draft) -> Draft:
    return replace(draft, headers=((SNAPSHOT_TIME_HEADER, b"%d" % draft.timestamp_ms),))


async def test_worker_killed_inside_a_native_call(pipeline: Pipeline) -> None:
    await write(pipeline, COUNT)
    for step in NATIVE_STEPS:
        fates = ("killed", step, "3" if step.startswith("inside-F") else "1", *FAILING)
        worker = await pipeline.start_worker("tests.live.crashing", *(fates if "rollback" in step else fates[:3]))
        assert await worker.ended() == -INSIDE, (step, worker.text()[-2_000:])
    await pipeline.start_worker()
    await pipeline.caught_up()
    await pipeline.judge()


async def test_worker_whose_allocations_fail(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, or its lanes fail and open again; either way nothing is lost or done twice.

    With backtraces it would hang now and then.
    """
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    for room_bytes in ROOMS_BYTES:
        worker = await pipeline.start_worker()
        await worker.logged("lane.opened")
        limit_memory(worker, room_bytes)
        await write(pipeline, COUNT)
        await end_starved(worker, pipeline)
    assert any((worker.exit_code or 0) not in {0, -signal.SIGKILL} for worker in pipeline.workers)
    assert not any("stack backtrace" in worker.text() for worker in pipeline.workers)
    await pipeline.start_worker()
    await pipeline.caught_up()
    await pipeline.judge()


def limit_memory(worker: WorkerProcess, room_bytes: int) -> None:
    """Let a worker's allocations fail from so many bytes beyond what it has on."""
    pages = int(Path(f"/proc/{worker._process.pid}/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + room_bytes
    resource.prlimit(worker._process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


async def end_starved(worker: WorkerProcess, pipeline: Pipeline) -> None:
    """Wait until a worker has ended or caught up; it is killed then."""
    async with asyncio.timeout(WAIT_S):
        while worker.exit_code is None and await pipeline.lag():
            await asyncio.sleep(0.2)
    await worker.end(signal.SIGKILL)
