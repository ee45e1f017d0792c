"""Throughput of the worker on a real Kafka, compared with the floors of any consumer on aiokafka.

In every round these run one after the other over the same topic, in a process and a group of their own:

- `getmany`: a bare loop over aiokafka's `getmany`, with the worker's own consumer;
- `decode_floor`: the same loop, with every value and its participants decoded by msgspec;
- `worker`: `python -m consumer run` with the engine that is built, exactly once, from the first record until the
  committed offsets reach the end;
- `worker_commits_500`: the same with `CC_COMMIT_RECORDS_MAX=500`;
- `worker_python`: the same as `worker` with the Python engine.

The clock of a floor starts when its partitions are assigned, the worker's when its first lane is open: process start,
imports and joining the group are left out, the first fetch is not. Broker and runs share the machine, so events per CPU
second of the process is the steadier figure, and `of_decode_floor` is taken from it: the median over the rounds. What
the native engine declined is a share of the records. With `--framing` workers read framed records, floors plain ones.
"""

import asyncio
import statistics
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from consumer.settings import Settings
from consumer.simulator.relay import frame
from consumer.simulator.traffic import Traffic, records
from tests.benchmarks import exposition
from tests.benchmarks.exposition import Observed
from tests.benchmarks.options import Line, Options
from tests.benchmarks.scratch import STEP_S, Scratch, Spent, end, until, within_s
from tests.live.harness import PARTITIONS, now_ms

FLOORS = ("getmany", "decode_floor")
WORKER = "worker"
WORKERS: dict[str, dict[str, Any]] = {
    WORKER: {},
    "worker_commits_500": {"commit_records_max": 500},
    "worker_python": {"engine": "python"},
}
"""Their settings, where those are not the defaults."""
_AGO_MS = 3_600_000


class Speed(msgspec.Struct, frozen=True):
    """One run."""

    events_per_s: float
    events_per_cpu_s: float
    observed: Observed | None = None
    """What a worker's metrics say."""


class Course:
    """An input topic, written once and read from its beginning by every run."""

    def __init__(self, scratch: Scratch, events: int, partitions: int = PARTITIONS) -> None:
        self._scratch = scratch
        self._events = events
        self._partitions = partitions
        self._input_topic = ""

    async def write(self, traffic: Traffic, framings: Sequence[str] = ()) -> None:
        settings = self._scratch.settings()
        self._input_topic = settings.input_topic
        await self._scratch.create(settings, self._partitions)
        await self._scratch.write(settings, islice(frame(records(traffic), framings), self._events), self._events)

    async def run(self, name: str) -> Speed:
        settings = self._scratch.settings(self._input_topic)
        observed = None
        if name in WORKERS:
            spent, observed = await self._worker(msgspec.structs.replace(settings, **WORKERS[name]))
        else:
            spent = await self._floor(name, settings)
        speed = Speed(self._events / spent.seconds, self._events / spent.cpu_s, observed)
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

    async def _worker(self, settings: Settings) -> tuple[Spent, Observed]:
        await self._scratch.create(settings, self._partitions)
        async with self._scratch.workers(settings) as pipeline:
            worker = await pipeline.start_worker()
            await until(lambda: bool(worker.events("lane.opened")), worker, STEP_S)
            start = Spent.by(worker)
            await self._scratch.until_committed(worker, settings, self._partitions, self._events)
            spent = Spent.by(worker).since(start)
            await worker.counted(self._events)
            observed = exposition.read(await worker.exposition())
            await end(worker)
        return spent, observed


def recent(**fields: float) -> Traffic:
    """Traffic of the last hour."""
    return Traffic(start_ms=now_ms() - _AGO_MS, **fields)  # type: ignore[arg-type]  # all its fields are numbers


async def measure(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    plain = course = Course(scratch, options.events)
    await plain.write(recent())
    if options.framings:
        course = Course(scratch, options.events)
        await course.write(recent(), options.framings)
    speeds: dict[str, list[Speed]] = defaultdict(list)
    for _ in range(options.rounds):
        for name in (*FLOORS, *WORKERS):
            speeds[name].append(await (plain if name in FLOORS else course).run(name))
    floor = speeds["decode_floor"]
    for name, runs in speeds.items():
        ratios = [speed.events_per_cpu_s / base.events_per_cpu_s for speed, base in zip(runs, floor, strict=True)]
        yield {
            "name": name,
            "events_per_s": round(statistics.median(speed.events_per_s for speed in runs)),
            "events_per_cpu_s": round(statistics.median(speed.events_per_cpu_s for speed in runs)),
            "of_decode_floor": round(statistics.median(ratios), 3),
            **_summarize([run.observed for run in runs if run.observed is not None]),
        }


def _summarize(observed: list[Observed]) -> Line:
    """The engine, the highest p99 of the event loop's lag, and the shares of what was declined in the first run."""
    if not observed:
        return {}
    declined = observed[0].declined
    return {
        "engine": observed[0].engine,
        "loop_lag_p99_ms": round(max(run.loop_lag_p99_ms for run in observed), 1),
        "declined": round(sum(declined.values()), 4),
        **{f"declined_{reason}": round(share, 4) for reason, share in sorted(declined.items())},
    }
