"""The time from producing a record until a `read_committed` reader sees its transition.

Records are written at a steady rate, a quarter of the worker's throughput, and stamped when the producer gets them. A
reader of the transitions topic sees when the first operation of a record arrives. Writer and reader share one process
beside the worker and the broker, so the delays of that process count too.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from consumer.worker.commit_policy import CommitPolicy
from schemas.transition import Transition
from tests.benchmarks.options import Line, Options
from tests.benchmarks.scratch import STEP_S, Scratch, Spent, end, until
from tests.benchmarks.throughput import WORKER, Course, recent
from tests.live.harness import PARTITIONS, now_ms

_SHARE = 4
_TICK_S = 0.01
_WARM_S = 3.0
_SETTLE_S = 5.0
_TRANSITION = msgspec.json.Decoder(Transition)

Position = tuple[int, int]
"""Partition and offset of an input record."""


class Steady(msgspec.Struct, frozen=True):
    """A worker at a steady rate."""

    settings: Settings
    waits_ms: list[float]
    """From producing a record to reading its transition."""
    spent: Spent
    """By the worker, from the first record on."""

    def percentile_ms(self, percent: int) -> float:
        return statistics.quantiles(self.waits_ms, n=100)[percent - 1]

    @property
    def interval_ms(self) -> float:
        """The commit interval of its lanes."""
        return CommitPolicy.of(self.settings, PARTITIONS).interval_s * 1_000


async def measure(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    rate = options.rate or await measure_quarter(scratch, options.events)
    traffic = Traffic(start_ms=now_ms(), records_per_s=rate, disorder=0, duplicates=0)
    steady = await run_steadily(scratch, list(islice(records(traffic), count_drafts(rate, options))), rate)
    yield {
        "name": "latency",
        "rate": round(rate),
        "transitions": len(steady.waits_ms),
        "commit_interval_ms": round(steady.interval_ms),
        "p50_ms": round(steady.percentile_ms(50)),
        "p99_ms": round(steady.percentile_ms(99)),
        "p99_of_interval": round(steady.percentile_ms(99) / steady.interval_ms, 2),
    }


def count_drafts(rate: float, options: Options) -> int:
    """How many records a measurement takes."""
    return int(rate * (options.seconds + _WARM_S))


async def run_steadily(scratch: Scratch, drafts: list[Draft], rate: float) -> Steady:
    """Run a worker while records are written at a steady rate."""
    settings = scratch.settings()
    await scratch.create(settings, PARTITIONS)
    async with scratch.workers(settings) as pipeline:
        worker = await pipeline.start_worker()
        await until(lambda: len(worker.events("lane.opened")) == PARTITIONS, worker, STEP_S)
        start = Spent.by(worker)
        waits_ms = await _measure_waits_ms(settings, drafts, rate)
        spent = Spent.by(worker).since(start)
        await end(worker)
    return Steady(settings, waits_ms, spent)


async def measure_quarter(scratch: Scratch, events: int) -> float:
    """A quarter of the records a second that a worker manages."""
    course = Course(scratch, events)
    await course.write(recent())
    return (await course.run(WORKER)).events_per_s / _SHARE


async def _measure_waits_ms(settings: Settings, drafts: list[Draft], rate: float) -> list[float]:
    """Milliseconds from producing a record to reading its transition; the first seconds are left out."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    seen_ms: dict[Position, float] = {}
    await asyncio.wait_for(consumer.start(), STEP_S)
    watching: asyncio.Task[None] | None = None
    try:
        tps = [TopicPartition(settings.transitions_topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        watching = asyncio.create_task(_watch(consumer, seen_ms))
        began_ms = time.time() * 1_000
        async with asyncio.timeout(STEP_S + len(drafts) / rate * 2), TrafficWriter(settings) as writer:
            sent = await _write_paced(writer, drafts, rate)
            await writer.flush()
        await asyncio.wait({watching}, timeout=_SETTLE_S)
        if watching.done():
            watching.result()
    finally:
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        await consumer.stop()
    stamps_ms = {(future.result().partition, future.result().offset): stamp_ms for future, stamp_ms in sent}
    return [
        at_ms - stamps_ms[source]
        for source, at_ms in seen_ms.items()
        if stamps_ms[source] >= began_ms + _WARM_S * 1_000
    ]


async def _watch(consumer: AIOKafkaConsumer, seen_ms: dict[Position, float]) -> None:
    while True:
        for fetched in (await consumer.getmany(timeout_ms=1_000)).values():
            now = time.time() * 1_000
            for output in fetched:
                source = _TRANSITION.decode(output.value).source
                seen_ms.setdefault((source.partition, source.offset), now)


async def _write_paced(
    writer: TrafficWriter, drafts: list[Draft], rate: float
) -> list[tuple[asyncio.Future[Any], float]]:
    """Give records to the producer at a steady rate; returns (future answer, time of sending in ms) of every record."""
    sent: list[tuple[asyncio.Future[Any], float]] = []
    began_s, late_s = time.monotonic(), 0.0
    while len(sent) < len(drafts):
        due = int((time.monotonic() - began_s) * rate) - len(sent)
        for draft in drafts[len(sent) : len(sent) + max(0, due)]:
            stamp_ms = time.time() * 1_000
            sent.append((await writer._send(msgspec.structs.replace(draft, timestamp_ms=int(stamp_ms))), stamp_ms))
        late_s = max(late_s, time.monotonic() - began_s - len(sent) / rate)
        await asyncio.sleep(_TICK_S)
    await asyncio.gather(*[future for future, _ in sent])
    print(f"latency: {len(sent)} records at {rate:.0f}/s, at most {late_s:.3f} s late", file=sys.stderr)
    return sent
