"""Load that goes on while something below the service, or the service itself, is replaced piece by piece."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from consumer.simulator.traffic import Draft
from tests.live.commands import WAIT_S
from tests.live.faults import write_steadily
from tests.live.harness import Judgement, Pipeline
from tests.live.worker_process import WorkerProcess

_READY = 200


class Rollout:
    """Workers under a steady load without damaged records, and what must hold between one replacement and the next."""

    def __init__(self, pipeline: Pipeline, seconds: float) -> None:
        self.pipeline = pipeline
        self.workers: list[WorkerProcess] = []
        """Those that run."""
        self._seconds = seconds

    async def start(self, tree: Path | None = None) -> None:
        """Start one more worker, of the version in another tree if one is given."""
        self.workers.append(await self.pipeline.start_worker("tests.live.witness", tree=tree))

    async def replace(self, index: int, tree: Path | None) -> None:
        """Replace a worker as a supervisor does: stop it, and start another one."""
        assert await self.workers[index].end(signal.SIGTERM) == 0, self.workers[index].text()[-4_000:]
        self.workers[index] = await self.pipeline.start_worker("tests.live.witness", tree=tree)

    @contextlib.asynccontextmanager
    async def load(self, traffic: Iterator[Draft]) -> AsyncIterator[None]:
        """Write until the end of the context, then wait until all of it is committed, and stop the workers."""
        over = asyncio.Event()
        writing = asyncio.create_task(write_steadily(self.pipeline, traffic, over))
        try:
            yield
        finally:
            over.set()
            await writing
        await self.pipeline.caught_up()
        for worker in self.workers:
            assert await worker.end(signal.SIGTERM) == 0, worker.text()[-4_000:]

    async def go_on(self, what: str) -> None:
        """Let the load go on for a while: all workers become ready, and every partition moves. Reports it."""
        started_s = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            for worker in self.workers:
                while not await self._is_ready(worker):
                    assert worker.exit_code is None, worker.text()[-4_000:]
                    await asyncio.sleep(0.2)
        ready_s = time.monotonic() - started_s
        await asyncio.sleep(self._seconds)
        async with asyncio.timeout(WAIT_S):
            ends = await self._ends()
        await self.pipeline.committed_up_to(ends)
        print(
            f"{time.strftime('%H:%M:%S')} {what}: ready after {ready_s:.1f} s, {sum(ends.values())} records committed",
            flush=True,
        )

    @staticmethod
    async def _is_ready(worker: WorkerProcess) -> bool:
        try:
            return await worker.ready() == _READY
        except OSError:
            return False

    async def _ends(self) -> dict[TopicPartition, int]:
        """The ends of the input; retries until the brokers answer."""
        while True:
            with contextlib.suppress(KafkaError, TimeoutError):
                return dict(await self.pipeline.ends(self.pipeline.settings.input_topic))
            await asyncio.sleep(0.2)

    def broken_promises(self, judged: Judgement) -> list[str]:
        """A sentence for every promise that was broken: a mismatch, a dead letter, a lane that stood still."""
        broken = list(judged.mismatches)
        if judged.dead:
            broken.append(f"{judged.dead} dead letters of records that nothing is wrong with")
        troubles = self.pipeline.events("lane.stands_still", "consumer.failed")
        broken += [f"a worker logged {trouble!r}" for trouble in troubles]
        idle = [
            f"worker {number} committed nothing"
            for number, worker in enumerate(self.pipeline.workers, 1)
            if not worker.events("witness.committed")
        ]
        return broken + idle


def describe(judged: Judgement, pipeline: Pipeline) -> str:
    """The figures of a run, in a line."""
    counts = {name: len(pipeline.events(name)) for name in ("lane.failed", "lane.fenced", "lane.transaction_repaired")}
    return (
        f"{len(judged.mismatches)} mismatches: {judged.records} records, {judged.conversations} conversations, "
        f"{judged.operations} operations, {judged.dead} dead letters; {counts}"
    )
