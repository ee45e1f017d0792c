"""Throughput of the worker on a real Kafka, beside the floors that no consumer on aiokafka gets below.

`python -m tests.benchmarks.throughput [--events 50000] [--rounds 3]`. In each round, one after the other and each as a
process of its own with a new group, over the same topic:

- `getmany`: a bare loop over aiokafka's `getmany`, with the worker's own consumer;
- `decode_floor`: the same, and each value decoded by msgspec, with all its participants;
- `worker_exactly_once`: `python -m consumer run`, from the first record until the committed offsets reach the end.

The clock of a floor starts when its partitions are assigned, the worker's when its first lane is open: process start,
imports and joining the group are left out, the first fetch is not. Broker and runs share the machine, so events per CPU
second of the process is the steadier figure, and `of_decode_floor` is taken from it: the median over the rounds.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumer.adapters.kafka_topics import TopicAdmin, plans
from consumer.adapters.kafka_writer import KafkaWriter
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from tests.benchmarks.floor import Spent
from tests.live.broker import find_broker
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms

FLOORS = ("getmany", "decode_floor")
WORKER = "worker_exactly_once"
_EVENTS_MAX = 1_000_000
_ROUNDS_MAX = 20
_AGO_MS = 3_600_000
_STEP_S = 30.0
_EVENTS_PER_S_MIN = 1_000
_OPENED_POLL_S = 0.005
_COMMITTED_POLL_S = 0.02


class Speed(msgspec.Struct, frozen=True):
    """One run."""

    events_per_s: float
    events_per_cpu_s: float


class Bench:
    """One input topic, written once, and the runs over it."""

    def __init__(self, bootstrap_servers: str, events: int, logs: Path) -> None:
        self._name = f"benchmark-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap_servers
        self._events = events
        self._logs = logs
        self._within_s = _STEP_S + events / _EVENTS_PER_S_MIN
        self._used: list[Settings] = []

    def settings(self) -> Settings:
        """The service's defaults, with a group and output topics that nobody has used."""
        name = f"{self._name}-{len(self._used)}"
        settings = Settings(
            bootstrap_servers=self._bootstrap,
            input_topic=f"{self._name}-updates",
            state_topic=f"{name}-state",
            transitions_topic=f"{name}-transitions",
            dead_letters_topic=f"{name}-dead-letters",
            group_id=name,
        )
        self._used.append(settings)
        return settings

    async def write(self) -> float:
        """Make the input topic and fill it; returns the mean of the values' bytes."""
        settings, size = self.settings(), 0

        def drafts() -> Iterator[Draft]:
            nonlocal size
            for draft in islice(records(Traffic(start_ms=now_ms() - _AGO_MS)), self._events):
                size += len(draft.value)
                yield draft

        async with asyncio.timeout(self._within_s):
            async with TopicAdmin(settings) as admin:
                await admin.create(PARTITIONS, 1)
            async with KafkaWriter(settings) as writer:
                await writer.write(drafts())
                await writer.flush()
        return size / self._events

    async def run(self, name: str) -> Speed:
        spent = await (self._worker() if name == WORKER else self._floor(name))
        return Speed(self._events / spent.seconds, self._events / spent.cpu_s)

    async def clean(self) -> None:
        """Delete the topics: a broker that was given lives on."""
        topics = {plan.name for each in self._used for plan in plans(each)}
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            async with asyncio.timeout(_STEP_S):
                await admin.start()
                await admin.delete_topics(sorted(topics))
        except (KafkaError, TimeoutError) as error:
            print(f"the topics {self._name}* may be left: {error!r}", file=sys.stderr)
        finally:
            await admin.close()

    async def _floor(self, name: str) -> Spent:
        arguments = (name, msgspec.json.encode(self.settings()).decode(), str(self._events), str(self._within_s))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.floor", *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(self._within_s + _STEP_S):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        return msgspec.json.decode(out, type=Spent)

    async def _worker(self) -> Spent:
        pipeline = Pipeline(self._bootstrap, self._name, self._logs)
        pipeline.settings = self.settings()
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            async with asyncio.timeout(self._within_s + _STEP_S):
                await pipeline.create()
                await admin.start()
                worker = await pipeline.start_worker()
                while not worker.events("lane.opened"):
                    await _pause(worker, _OPENED_POLL_S)
                start = _spent_by(worker)
                while await self._committed(admin, pipeline.settings) < self._events:
                    await _pause(worker, _COMMITTED_POLL_S)
                spent = _spent_by(worker).since(start)
                await worker.end(signal.SIGTERM, _STEP_S)
            return spent
        finally:
            await pipeline.close()
            await admin.close()

    async def _committed(self, admin: AIOKafkaAdminClient, settings: Settings) -> int:
        tps = [TopicPartition(settings.input_topic, each) for each in range(PARTITIONS)]
        found = await admin.list_consumer_group_offsets(settings.group_id, partitions=tps)
        return sum(max(0, each.offset) for each in found.values())


async def _pause(worker: WorkerProcess, seconds: float) -> None:
    if worker._process.returncode is not None:
        raise RuntimeError(f"the worker ended: {worker.text()[-4_000:]}")
    await asyncio.sleep(seconds)


def _spent_by(worker: WorkerProcess) -> Spent:
    fields = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()
    return Spent(time.perf_counter(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


async def _measure(bootstrap_servers: str, events: int, rounds: int) -> dict[str, list[Speed]]:
    speeds: dict[str, list[Speed]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as logs:
        bench = Bench(bootstrap_servers, events, Path(logs))
        try:
            mean = await bench.write()
            print(f"{events} events, {mean:.0f} bytes of value on average, {PARTITIONS} partitions, {rounds} rounds")
            for number in range(rounds):
                for name in (*FLOORS, WORKER):
                    speed = await bench.run(name)
                    speeds[name].append(speed)
                    print(f"round {number + 1}: {name}: {speed}", file=sys.stderr)
        finally:
            await bench.clean()
    return speeds


def _report(speeds: dict[str, list[Speed]]) -> None:
    floor, lines = speeds["decode_floor"], []
    print(f"{'median':<20} {'events/s':>10} {'events/CPU s':>13} {'of decode_floor':>16}")
    for name, runs in speeds.items():
        per_s = statistics.median(each.events_per_s for each in runs)
        per_cpu_s = statistics.median(each.events_per_cpu_s for each in runs)
        ratio = statistics.median(
            each.events_per_cpu_s / base.events_per_cpu_s for each, base in zip(runs, floor, strict=True)
        )
        print(f"{name:<20} {per_s:>10.0f} {per_cpu_s:>13.0f} {ratio:>16.2f}")
        line = {"events_per_s": round(per_s), "events_per_cpu_s": round(per_cpu_s), "of_decode_floor": round(ratio, 3)}
        lines.append(msgspec.json.encode({"name": name, **line}).decode())
    print(*lines, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.throughput", description="Measure throughput.")
    parser.add_argument("--events", type=int, default=50_000, help=f"records to read, up to {_EVENTS_MAX}")
    parser.add_argument("--rounds", type=int, default=3, help=f"runs of each kind, up to {_ROUNDS_MAX}")
    given = parser.parse_args()
    if not (0 < given.events <= _EVENTS_MAX and 0 < given.rounds <= _ROUNDS_MAX):
        parser.error("--events or --rounds is out of bounds")
    if not Path("/proc/self/stat").exists():
        sys.exit("needs Linux, whose /proc tells the CPU time of the worker")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    broker = find_broker()
    if isinstance(broker, str):
        sys.exit(f"needs a real Kafka: {broker}")
    try:
        _report(asyncio.run(_measure(broker.bootstrap_servers, given.events, given.rounds)))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
