"""Workers under faults: a schedule drawn from a seed, and what came of it.

`python -m tests.live.faults --minutes 10 [--seed N]` is the long run. Every fault is over when its method returns;
what it broke has to heal by itself.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from pathlib import Path

from msgspec import Struct, field

from consumer.adapters.kafka_writer import KafkaWriter
from consumer.runtime.ports import WorldError
from consumer.simulator.traffic import Traffic, records
from tests.live.broker import BrokerError, LocalBroker, jars
from tests.live.crashing import STEPS
from tests.live.harness import Pipeline, WorkerProcess, now_ms
from tests.live.proxy import Proxy

WORKERS = 2
RECOVERY_S = 60.0
"""Within this time after the last fault everything written is committed."""
RESIDENT_BYTES_MAX = 400_000_000
OPEN_FILES_MAX = 200

_RATE = 200
_REQUEST_TIMEOUT_MS = 3_000
_DEATH_S = 30.0
_DRAIN_S = 15.0
_RESTARTABLE_EXITS = {0, 69, -signal.SIGKILL}
"""Exits after which a supervisor may start a worker again: asked to, the broker away, killed here."""


class Report(Struct):
    """What a run came to."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    recovery_s: float = 0.0
    resident_bytes: int = 0
    open_files: int = 0
    records: int = 0
    dead_letters: int = 0
    conversations: int = 0
    operations: int = 0

    def __str__(self) -> str:
        rows = [
            ("seed", self.seed),
            ("faults", ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))),
            ("exits of workers", ", ".join(f"{code}: {count}" for code, count in sorted(self.exits.items()))),
            ("recovery after the last fault", f"{self.recovery_s:.1f} s"),
            ("largest resident size", f"{self.resident_bytes / 1e6:.0f} MB"),
            ("most open files", self.open_files),
            ("records, dead letters", f"{self.records}, {self.dead_letters}"),
            ("conversations, operations", f"{self.conversations}, {self.operations}"),
            ("outputs equal the model", "yes"),
        ]
        return "\n".join(f"{name:32}{told}" for name, told in rows)


class Scene:
    """A broker behind a proxy, the workers on it, and the faults that befall them."""

    def __init__(self, broker: LocalBroker, proxy: Proxy, pipeline: Pipeline, report: Report) -> None:
        self._broker = broker
        self._proxy = proxy
        self._pipeline = pipeline
        self._report = report
        self._chance = random.Random(report.seed)
        self._workers: list[WorkerProcess] = []
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self._kill_worker,
            "worker stopped past its session": self._stop_worker,
            "rebalance storm": self._storm,
            "broker killed": self._kill_broker,
            "broker stopped past the request timeout": self._stop_broker,
            "connections delayed": self._delay,
            "connections cut": self._cut,
            "connections half-closed": self._half_close,
        } | {f"killed {step}": self._crash(step) for step in STEPS}

    def schedule(self, until_s: float | None) -> list[str]:
        """Every fault once in random order; with a time, more and more of them."""
        names = list(self.faults)
        self._chance.shuffle(names)
        return names if until_s is None else self._chance.choices(names, k=10_000)

    async def befall(self, name: str) -> None:
        """Let a fault happen and pass, then put back the workers that it ended."""
        await self.keep_workers()
        await asyncio.sleep(self._chance.uniform(0.5, 2))
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        await self.faults[name]()
        self._report.faults[name] += 1
        self._measure()

    async def keep_workers(self) -> None:
        """Start workers where some have ended; an exit that no supervisor should see raises AssertionError."""
        for worker in [each for each in self._workers if each.exit_code is not None]:
            code = worker.exit_code
            assert code in _RESTARTABLE_EXITS, worker.text()[-4_000:]
            self._report.exits[code] += 1
            self._workers.remove(worker)
        while len(self._workers) < WORKERS:
            self._workers.append(await self._start())

    async def drain(self) -> None:
        """End the workers as a supervisor would."""
        for worker in self._workers:
            if worker.exit_code is None:
                assert await worker.end(signal.SIGTERM, _DRAIN_S) == 0, worker.text()[-4_000:]

    def _measure(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                self._report.resident_bytes = max(self._report.resident_bytes, worker.resident_bytes())
                self._report.open_files = max(self._report.open_files, worker.open_files())

    async def _start(self, *command: str) -> WorkerProcess:
        return await self._pipeline.start_worker(*command, bootstrap_servers=f"127.0.0.1:{self._broker.front_port}")

    def _some_worker(self) -> WorkerProcess:
        return self._chance.choice(self._workers)

    async def _kill_worker(self) -> None:
        await self._some_worker().end(signal.SIGKILL, _DEATH_S)

    async def _stop_worker(self) -> None:
        worker = self._some_worker()
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(self._pipeline.settings.session_timeout_ms / 1_000 + 2)
        worker.send(signal.SIGCONT)

    async def _storm(self) -> None:
        """Workers come and go, some before they have restored."""
        passing = []
        for _ in range(4):
            passing.append(await self._start())
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
            if self._chance.random() < 0.5:
                await passing.pop(0).end(self._chance.choice((signal.SIGTERM, signal.SIGKILL)), _DRAIN_S)
        for worker in passing:
            await worker.end(signal.SIGKILL, _DEATH_S)

    async def _kill_broker(self) -> None:
        await asyncio.to_thread(self._broker.kill)
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        await asyncio.to_thread(self._broker.start)

    async def _stop_broker(self) -> None:
        self._broker.pause()
        await asyncio.sleep(2 * _REQUEST_TIMEOUT_MS / 1_000)
        self._broker.resume()

    async def _delay(self) -> None:
        self._proxy.delay_s = self._chance.uniform(0.1, 0.5)
        await asyncio.sleep(4)
        self._proxy.delay_s = 0

    async def _cut(self) -> None:
        for _ in range(3):
            self._proxy.cut()
            await asyncio.sleep(self._chance.uniform(0.1, 1))

    async def _half_close(self) -> None:
        self._proxy.half_close()

    def _crash(self, step: str) -> Callable[[], Awaitable[None]]:
        async def crash() -> None:
            worker = await self._start("tests.live.crashing", step, str(self._chance.randrange(1, 6)))
            assert await worker.ended(_DEATH_S) == -signal.SIGKILL, worker.text()[-4_000:]

        return crash


async def run(seed: int, minutes: float | None, logs: Path) -> Report:
    """Every fault once, or faults at random for so many minutes. Raises AssertionError if a promise is broken."""
    report = Report(seed)
    async with _stage(report, logs) as (scene, pipeline):
        await scene.keep_workers()
        over = asyncio.Event()
        feeding = asyncio.create_task(_feed(pipeline, seed, over))
        until_s = None if minutes is None else time.monotonic() + minutes * 60
        try:
            for name in scene.schedule(until_s):
                if until_s is not None and time.monotonic() > until_s:
                    break
                await scene.befall(name)
            healed_s = time.monotonic()
            await scene.keep_workers()
        finally:
            over.set()
            await feeding
        await pipeline.caught_up(RECOVERY_S)
        report.recovery_s = time.monotonic() - healed_s
        await scene.drain()
        judged = await pipeline.judge()
    report.records, report.dead_letters = judged.records, judged.dead
    report.conversations, report.operations = judged.conversations, judged.operations
    assert report.resident_bytes < RESIDENT_BYTES_MAX, report
    assert report.open_files < OPEN_FILES_MAX, report
    return report


@contextlib.asynccontextmanager
async def _stage(report: Report, logs: Path) -> AsyncIterator[tuple[Scene, Pipeline]]:
    found = jars()
    if isinstance(found, str):
        raise BrokerError(f"needs a broker of its own: {found}")
    broker = LocalBroker(found)
    try:
        await asyncio.to_thread(broker.start)
        async with Proxy(broker.front_port, broker.behind_port) as proxy:
            settings = {"request_timeout_ms": _REQUEST_TIMEOUT_MS, "commit_interval_ms": 200}
            pipeline = Pipeline(broker.bootstrap_servers, f"faults-{report.seed}", logs, **settings)
            try:
                await pipeline.create()
                yield Scene(broker, proxy, pipeline, report), pipeline
            finally:
                await pipeline.close()
    finally:
        await asyncio.to_thread(broker.close)


async def _feed(pipeline: Pipeline, seed: int, over: asyncio.Event) -> None:
    """Write steadily, and what failed again: at worst a record is there twice, which is nothing unusual."""
    stream = records(Traffic(seed=seed, start_ms=now_ms(), records_per_s=_RATE, conversations=200, broken=0.01))
    some = list(islice(stream, _RATE))
    while not over.is_set():
        try:
            async with KafkaWriter(pipeline.settings) as writer:
                while not over.is_set():
                    await writer.write(some)
                    await writer.flush()
                    some = list(islice(stream, _RATE))
                    await asyncio.sleep(1)
        except WorldError:
            await asyncio.sleep(1)


def main() -> None:
    """The long run, from the command line."""
    parser = argparse.ArgumentParser(description="Workers under faults, against a broker of their own.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args()
    print("seed", chosen.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as logs:
        try:
            print(asyncio.run(run(chosen.seed, chosen.minutes, Path(logs))))
        except AssertionError as error:
            sys.exit(f"seed {chosen.seed}: {error}")


if __name__ == "__main__":
    main()
