"""Topics, groups and workers of one part of the benchmarks, used by no other, and the time that workers spend."""

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumer.preflight.topic_admin import TopicAdmin
from consumer.preflight.topic_checks import plans
from consumer.settings import Settings
from consumer.simulator.traffic import Draft
from consumer.tools.traffic_writer import TrafficWriter
from tests.live.harness import Pipeline
from tests.live.worker_process import WorkerProcess

STEP_S = 30.0
"""The longest duration of a step whose work does not depend on the options."""
_EVENTS_PER_S_MIN = 100
_POLL_S = 0.02


class Spent(msgspec.Struct, frozen=True):
    """Seconds of a run. CPU is user and system time."""

    seconds: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Spent":
        """The time spent by this process so far."""
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def by(cls, worker: WorkerProcess) -> "Spent":
        """The time spent by a worker so far."""
        fields = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()
        return cls(time.perf_counter(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))

    def since(self, start: "Spent") -> "Spent":
        return Spent(self.seconds - start.seconds, self.cpu_s - start.cpu_s)


def within_s(records: int) -> float:
    """The longest duration of a step with so many records."""
    return STEP_S + records / _EVENTS_PER_S_MIN


class Scratch:
    """The topics and groups of one part. An async context manager that deletes the topics at the end."""

    def __init__(self, bootstrap_servers: str, logs: Path) -> None:
        self._name = f"benchmark-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap_servers
        self._logs = logs
        self._used: list[Settings] = []
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)

    async def __aenter__(self) -> Self:
        await asyncio.wait_for(self._admin.start(), STEP_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        topics = {plan.name for settings in self._used for plan in plans(settings)}
        try:
            async with asyncio.timeout(STEP_S):
                await self._admin.delete_topics(sorted(topics))
        except (KafkaError, TimeoutError) as error:
            print(f"topics {self._name}* may remain: {error!r}", file=sys.stderr)
        finally:
            await self._admin.close()

    def settings(self, input_topic: str | None = None) -> Settings:
        """The service's defaults with a new group and new output topics, on a new or a given input topic.

        Workers run the engine of CC_ENGINE.
        """
        name = f"{self._name}-{len(self._used)}"
        settings = Settings(
            bootstrap_servers=self._bootstrap,
            input_topic=input_topic or f"{name}-updates",
            state_topic=f"{name}-state",
            transitions_topic=f"{name}-transitions",
            dead_letters_topic=f"{name}-dead-letters",
            group_id=name,
            engine=os.environ.get("CC_ENGINE", "auto"),  # type: ignore[arg-type]  # a worker checks it
        )
        self._used.append(settings)
        return settings

    async def create(self, settings: Settings, partitions: int) -> None:
        """Create the topics; an existing input keeps its partitions."""
        async with asyncio.timeout(STEP_S), TopicAdmin(settings) as admin:
            await admin.create(partitions, 1)

    async def write(self, settings: Settings, drafts: Iterable[Draft], count: int) -> None:
        """Write records to the input."""
        async with asyncio.timeout(within_s(count)), TrafficWriter(settings) as writer:
            await writer.write(drafts)
            await writer.flush()

    async def commit_beginning(self, settings: Settings, partitions: int) -> None:
        """Commit offset 0 of every partition: a state of conversations without a committed offset opens no lane."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=settings.group_id, enable_auto_commit=False
        )
        async with asyncio.timeout(STEP_S), consumer:
            tps = [TopicPartition(settings.input_topic, partition) for partition in range(partitions)]
            consumer.assign(tps)
            await consumer.commit(dict.fromkeys(tps, 0))

    @contextlib.asynccontextmanager
    async def workers(self, settings: Settings) -> AsyncIterator[Pipeline]:
        """A pipeline that starts workers and stops them all at the end."""
        pipeline = Pipeline(self._bootstrap, self._name, self._logs)
        pipeline.settings = settings
        try:
            yield pipeline
        finally:
            await pipeline.close()

    async def until_committed(self, worker: WorkerProcess, settings: Settings, partitions: int, count: int) -> None:
        """Wait until the group has committed so many records."""
        tps = [TopicPartition(settings.input_topic, partition) for partition in range(partitions)]
        async with asyncio.timeout(within_s(count)):
            while True:
                committed = await self._admin.list_consumer_group_offsets(settings.group_id, partitions=tps)
                if sum(max(0, position.offset) for position in committed.values()) >= count:
                    return
                await pause(worker, _POLL_S)


async def until(happened: Callable[[], bool], worker: WorkerProcess, most_s: float) -> None:
    """Wait until a condition holds; fails after `most_s`, or when the worker ends."""
    async with asyncio.timeout(most_s):
        while not happened():
            await pause(worker, _POLL_S)


async def pause(worker: WorkerProcess, seconds: float) -> None:
    if worker.exit_code is not None:
        raise RuntimeError(f"the worker ended: {worker.text()[-4_000:]}")
    await asyncio.sleep(seconds)


async def end(worker: WorkerProcess) -> None:
    """Stop a worker by SIGTERM; fails unless it exits with 0."""
    if await worker.end(signal.SIGTERM, STEP_S):
        raise RuntimeError(f"the worker failed: {worker.text()[-4_000:]}")
