"""Throughput of the worker on a real Kafka, beside the floors that no consumer on aiokafka gets below.

In each round, one after the other and each as a process of its own with a new group, over the same topic:

- `getmany`: a bare loop over aiokafka's `getmany`, with the worker's own consumer;
- `decode_floor`: the same, and each value decoded by msgspec, with all its participants;
- `worker_exactly_once`: `python -m consumer run`, from the first record until the committed offsets reach the end.

The clock of a floor starts when its partitions are assigned, the worker's when its first lane is open: process start,
imports and joining the group are left out, the first fetch is not. Broker and runs share the machine, so events per CPU
second of the process is the steadier figure, and `of_decode_floor` is taken from it: the median over the rounds.
"""

import asyncio
import statistics
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import islice

import msgspec

from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Traffic, records
from tests.benchmarks.options import Line, Options
from tests.benchmarks.scratch import STEP_S, Scratch, Spent, end, until, within_s
from tests.live.harness import PARTITIONS, now_ms

FLOORS = ("getmany", "decode_floor")
WORKER = "worker_exactly_once"
_AGO_MS = 3_600_000


class Speed(msgspec.Struct, frozen=True):
    """One run."""

    events_per_s: float
    events_per_cpu_s: float


class Course:
    """An input topic, written once, to be read from its beginning again and again."""

    def __init__(self, scratch: Scratch, events: int, partitions: int = PARTITIONS) -> None:
        self._scratch = scratch
        self._events = events
        self._partitions = partitions
        self._input_topic = ""

    async def write(self, traffic: Traffic) -> None:
        settings = self._scratch.settings()
        self._input_topic = settings.input_topic
        await self._scratch.create(settings, self._partitions)
        await self._scratch.write(settings, islice(records(traffic), self._events), self._events)

    async def run(self, name: str) -> Speed:
        settings = self._scratch.settings(self._input_topic)
        spent = await (self._worker(settings) if name == WORKER else self._floor(name, settings))
        speed = Speed(self._events / spent.seconds, self._events / spent.cpu_s)
        print(f"{name}, {self._events} events, {self._partitions} partitions: {speed}", file=sys.stderr)
        return speed

    async def _floor(self, name: str, settings: Settings) -> Spent:
        most_s = within_s(self._events)
        arguments = (name, msgspec.json.encode(settings).decode(), str(self._events), str(most_s))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.floor", *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(most_s + STEP_S):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        return msgspec.json.decode(out, type=Spent)

    async def _worker(self, settings: Settings) -> Spent:
        await self._scratch.create(settings, self._partitions)
        async with self._scratch.workers(settings) as pipeline:
            worker = await pipeline.start_worker()
            await until(lambda: bool(worker.events("lane.opened")), worker, STEP_S)
            start = Spent.by(worker)
            await self._scratch.until_committed(worker, settings, self._partitions, self._events)
            spent = Spent.by(worker).since(start)
            await end(worker)
        return spent


def recent(**how: float) -> Traffic:
    """Traffic of the last hour."""
    return Traffic(start_ms=now_ms() - _AGO_MS, **how)  # type: ignore[arg-type]  # all its fields are numbers


async def measure(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    course = Course(scratch, options.events)
    await course.write(recent())
    speeds: dict[str, list[Speed]] = defaultdict(list)
    for _ in range(options.rounds):
        for name in (*FLOORS, WORKER):
            speeds[name].append(await course.run(name))
    floor = speeds["decode_floor"]
    for name, runs in speeds.items():
        ratios = [each.events_per_cpu_s / base.events_per_cpu_s for each, base in zip(runs, floor, strict=True)]
        yield {
            "name": name,
            "events_per_s": round(statistics.median(each.events_per_s for each in runs)),
            "events_per_cpu_s": round(statistics.median(each.events_per_cpu_s for each in runs)),
            "of_decode_floor": round(statistics.median(ratios), 3),
        }
