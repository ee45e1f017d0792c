"""Whether the worker keeps its speed with more partitions, events, disorder or conversations.

Every case is a worker on an input of its own, interleaved with the other cases of its part. `of_first` is the median
over the rounds of the events per CPU second, relative to the first case.
"""

import statistics
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import islice

import msgspec

from consumer.simulator.traffic import Traffic, records
from tests.benchmarks import states
from tests.benchmarks.options import Line, Options
from tests.benchmarks.scratch import STEP_S, Scratch, Spent, end, until, within_s
from tests.benchmarks.throughput import WORKER, Course, recent
from tests.live.harness import PARTITIONS

_PARTITIONS = (1, 4, 16, 64)
_DISORDER = (0.0, 0.2)
_TIMES = 10


class Case(msgspec.Struct, frozen=True):
    """An input for one worker."""

    name: str
    events: int
    traffic: Traffic
    partitions: int = PARTITIONS


async def partitions(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    cases = [Case(f"{count} partitions", options.events, recent(), count) for count in _PARTITIONS]
    async for line in _compare(scratch, options, cases):
        yield line


async def events(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    few = max(1, options.events // 4)
    cases = [Case(f"{count} events", count, recent()) for count in (few, few * _TIMES)]
    async for line in _compare(scratch, options, cases):
        yield line


async def disorder(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    cases = [Case(f"{share:.0%} disorder", options.events, recent(disorder=share)) for share in _DISORDER]
    async for line in _compare(scratch, options, cases):
        yield line


async def conversations(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    """Traffic after the worker has restored few other conversations, or ten times as many."""
    counts = (max(1, options.conversations // _TIMES), options.conversations)
    made, traffic = states.templates(), recent()
    speeds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for count in counts:
            spent = await _run_after_restore(scratch, made, count, traffic, options.events)
            name = "few conversations" if count == counts[0] else f"{_TIMES} times the conversations"
            speeds[name].append(options.events / spent.cpu_s)
    for line in _summarize(speeds):
        yield line


async def _run_after_restore(
    scratch: Scratch, made: list[states.Template], count: int, traffic: Traffic, events_: int
) -> Spent:
    settings = scratch.settings()
    await scratch.create(settings, PARTITIONS)
    await scratch.write(states.topic(settings), states.drafts(made, count), count)
    await scratch.commit_beginning(settings, PARTITIONS)
    async with scratch.workers(settings) as pipeline:
        worker = await pipeline.start_worker()
        await until(lambda: len(worker.events("lane.opened")) == PARTITIONS, worker, STEP_S + within_s(count))
        start = Spent.by(worker)
        await scratch.write(settings, islice(records(traffic), events_), events_)
        await scratch.until_committed(worker, settings, PARTITIONS, events_)
        spent = Spent.by(worker).since(start)
        await end(worker)
    return spent


async def _compare(scratch: Scratch, options: Options, cases: list[Case]) -> AsyncIterator[Line]:
    courses: dict[str, Course] = {}
    for case in cases:
        courses[case.name] = Course(scratch, case.events, case.partitions)
        await courses[case.name].write(case.traffic)
    speeds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for name, course in courses.items():
            speeds[name].append((await course.run(WORKER)).events_per_cpu_s)
    for line in _summarize(speeds):
        yield line


def _summarize(speeds: dict[str, list[float]]) -> list[Line]:
    first = next(iter(speeds.values()))
    return [
        {
            "name": "growth",
            "with": name,
            "events_per_cpu_s": round(statistics.median(runs)),
            "of_first": round(statistics.median(speed / base for speed, base in zip(runs, first, strict=True)), 3),
        }
        for name, runs in speeds.items()
    ]
