"""Workers on three brokers under faults: a schedule drawn from a seed, and a report of the outcome.

`python -m tests.live.faults --minutes 10 [--seed N] [--only NAME]... [--replicas N] [--back-to-back]` is the long run;
with `--once` every fault comes once.
Every fault is over when its method returns; the workers must recover without help. Bounds on time are generous, so
that a slow machine keeps them; the outputs are compared strictly.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from consumer.worker.ports import ExternalError
from tests.live.broker import BrokerError, LocalBroker, jars
from tests.live.cluster import NODES, Cluster
from tests.live.crashing import STEPS
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.proxy import END_TXN, PRODUCE
from tests.live.soak_table import Report, Sample
from tests.live.worker_process import WorkerProcess

WORKERS = 2
RECOVERY_S = 180.0
"""Records written before a fault are committed within this time after it; an idle machine takes seconds."""
RESIDENT_BYTES_MAX = 500_000_000
DESCRIPTORS_MAX = 300

MISMATCHES = "mismatches"
"""The file of all mismatches, in the folder of the workers' logs and the saved data of the brokers."""

_RATE = 200
_REQUEST_TIMEOUT_MS = 3_000
_DEATH_S = 300.0
_DECIDED_S = 0.02
"""The end of a transaction takes about this time from the proxy to the partitions."""
_DRAIN_S = 60.0
_RESTORING_S = 120.0
_WAITED_FOR_SHARE = 0.5
"""Share of the faults in the long run that the workers recover from before the next one; the others overlap."""
_SAMPLE_S = 2.0
_UNAVAILABLE = 69
_RESTARTABLE_EXITS = {0, _UNAVAILABLE, -signal.SIGKILL}
"""Exits after which a worker is restarted: stopped on request, broker unavailable, killed by a fault."""


class Plan(Struct, frozen=True):
    """The faults of a run, and its duration."""

    seed: int
    minutes: float | None = None
    """None for every fault once."""
    only: Sequence[str] = ()
    """The names of the faults to choose from; empty for all of them."""
    replicas: int = NODES
    """Of every topic but that of the transactions."""
    back_to_back: bool = False
    """Whether a fault may start before the workers have recovered from the one before."""


class Scene:
    """Brokers behind proxies, workers, and the faults that hit them. The first worker is never killed."""

    def __init__(self, cluster: Cluster, pipeline: Pipeline, report: Report, chance: random.Random) -> None:
        self._cluster = cluster
        self._pipeline = pipeline
        self._report = report
        self._chance = chance
        self._workers: list[WorkerProcess] = []

    @classmethod
    def faults(cls) -> Mapping[str, Callable[["Scene"], Awaitable[None]]]:
        """Every fault by its name."""
        return {
            "worker killed": cls._kill_worker,
            "worker stopped past its session": cls._stop_worker,
            "rebalance storm": cls._storm,
            "rebalance storm during restore": cls._storm_during_restore,
            "leader of a partition killed": cls._kill_leader,
            "coordinator of the group killed": cls._kill_group_coordinator,
            "coordinator of transactions killed": cls._kill_transaction_coordinator,
            "broker killed amid a commit": cls._kill_broker_amid_commit,
            "all brokers killed": cls._kill_brokers,
            "all brokers killed as a transaction ends": cls._kill_brokers_amid_end,
            "brokers killed one after another": cls._kill_brokers_in_turn,
            "leader stopped past the request timeout": cls._stop_leader,
            "all brokers stopped past the request timeout": cls._stop_brokers,
            "answer to a commit lost": cls._lose_answer,
            "end of a transaction late": cls._deliver_late,
            "connections delayed": cls._delay,
            "connections cut": cls._cut,
            "connections half-closed": cls._half_close,
        } | {f"worker killed {step}": partial(cls._crash, step=step) for step in STEPS}

    async def befall(self, name: str) -> None:
        """Restart ended workers, then run one fault to its end."""
        await self.restart_workers()
        await asyncio.sleep(self._chance.uniform(0.2, 1))
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        await self.faults()[name](self)
        self._report.faults[name] += 1

    async def recover(self) -> None:
        """Restart workers and measure until all records so far are committed; AssertionError past `RECOVERY_S`."""
        started_s = time.monotonic()
        await self.restart_workers()
        try:
            async with asyncio.timeout(RECOVERY_S):
                ends = await self._ends(self._pipeline.settings.input_topic)
                restarting = asyncio.create_task(self._keep_restarting())
                try:
                    await self._pipeline.committed_up_to(ends, RECOVERY_S)
                finally:
                    restarting.cancel()
        except TimeoutError:
            logs = "\n".join(worker.text()[-3_000:] for worker in self._workers)
            raise AssertionError(f"no recovery within {RECOVERY_S:g} s\n{logs}") from None
        self._report.recoveries_s.append(time.monotonic() - started_s)

    async def _ends(self, topic: str) -> dict[TopicPartition, int]:
        """The end offsets of a topic; retries until the brokers answer."""
        while True:
            try:
                return await self._pipeline.ends(topic)
            except (KafkaError, TimeoutError):
                await asyncio.sleep(0.5)

    async def _keep_restarting(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self.restart_workers()

    async def restart_workers(self) -> None:
        """Start a worker for every one that has ended; AssertionError if its exit code is not restartable."""
        for index, worker in enumerate(self._workers):
            code = worker.exit_code
            if code is not None:
                assert code in _RESTARTABLE_EXITS, worker.text()[-4_000:]
                self._report.exits[code] += 1
                self._workers[index] = await self._start()
        while len(self._workers) < WORKERS:
            self._workers.append(await self._start())

    async def drain(self) -> None:
        """Stop the workers with SIGTERM, as a supervisor does."""
        for worker in self._workers:
            if worker.exit_code is None:
                assert await worker.end(signal.SIGTERM, _DRAIN_S) == 0, worker.text()[-4_000:]

    async def sample(self) -> None:
        """Sample memory and descriptors of the workers, until cancelled."""
        born_s: dict[int, float] = {}
        while True:
            for number, worker in enumerate(self._pipeline.workers):
                if worker.exit_code is not None:
                    continue
                age_s = time.monotonic() - born_s.setdefault(number, time.monotonic())
                with contextlib.suppress(OSError):  # it ended just now
                    sample = Sample(age_s, worker.resident_bytes(), worker.open_files())
                    self._report.samples.setdefault(number, []).append(sample)
            await asyncio.sleep(_SAMPLE_S)

    async def _start(self, *command: str) -> WorkerProcess:
        return await self._pipeline.start_worker(
            *(command or ("tests.live.witness",)), bootstrap_servers=self._cluster.front
        )

    async def _kill_worker(self) -> None:
        await self._chance.choice(self._workers[1:]).end(signal.SIGKILL, _DEATH_S)

    async def _stop_worker(self) -> None:
        worker = self._chance.choice(self._workers)
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(self._pipeline.settings.session_timeout_ms / 1_000 + 2)
        worker.send(signal.SIGCONT)

    async def _storm(self) -> None:
        """Start and end workers in quick succession."""
        passing = []
        for _ in range(4):
            passing.append(await self._start())
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
            if self._chance.random() < 0.5:
                await passing.pop(0).end(self._chance.choice((signal.SIGTERM, signal.SIGKILL)), _DRAIN_S)
        for worker in passing:
            await worker.end(signal.SIGKILL, _DEATH_S)

    async def _storm_during_restore(self) -> None:
        """Start and end workers while a lane is restoring; slow connections prolong the restore."""
        await self._wait_for_states()
        self._set_delay(0.1)
        passing = []
        try:
            newcomer = await self._start_until(self._is_restoring)
            for _ in range(3):
                passing.append(await self._start())
                await asyncio.sleep(self._chance.uniform(0.5, 1.5))
        finally:
            self._set_delay(0)
        await newcomer.end(self._chance.choice((signal.SIGTERM, signal.SIGKILL)), _DRAIN_S)
        for worker in passing:
            await worker.end(signal.SIGKILL, _DEATH_S)

    async def _wait_for_states(self) -> None:
        """Wait until every partition has states to restore."""
        async with asyncio.timeout(_RESTORING_S):
            while not all((await self._ends(self._pipeline.settings.state_topic)).values()):
                await asyncio.sleep(0.2)

    async def _is_restoring(self, worker: WorkerProcess) -> bool:
        """Whether a worker has a lane whose restore is not complete."""
        if not worker.events("group.assigned"):
            return False
        try:
            return (await worker.metrics()).get("conversation_restore_remaining_records", 0) > 0
        except OSError:
            return False

    async def _start_until(self, happened: Callable[[WorkerProcess], Awaitable[bool]], *command: str) -> WorkerProcess:
        """Start a worker and wait until `happened`; start another one if it ended because no broker answered."""
        async with asyncio.timeout(_DEATH_S):
            worker = await self._start(*command)
            while not await happened(worker):
                if worker.exit_code == _UNAVAILABLE:
                    worker = await self._start(*command)
                assert worker.exit_code is None or await happened(worker), worker.text()[-4_000:]
                await asyncio.sleep(0.05)
        return worker

    async def _kill_leader(self) -> None:
        topics = (self._pipeline.settings.input_topic, self._pipeline.settings.state_topic)
        await self._bounce(await self._cluster.leader(self._chance.choice(topics), self._choose_partition()))

    async def _kill_group_coordinator(self) -> None:
        await self._bounce(await self._cluster.group_coordinator(self._pipeline.settings.group_id))

    async def _kill_transaction_coordinator(self) -> None:
        await self._bounce(await self._transaction_coordinator())

    async def _kill_broker_amid_commit(self) -> None:
        """Pause a worker within a commit while the coordinator of its transaction is killed."""
        step = self._chance.choice(STEPS[1:])
        worker = await self._start_until(_is_stopped, "tests.live.crashing", "paused", step, "2")
        node = await self._transaction_coordinator()
        await asyncio.to_thread(node.kill)
        worker.send(signal.SIGCONT)
        await asyncio.sleep(self._chance.uniform(0.5, 2))
        await asyncio.to_thread(node.start)
        await worker.end(signal.SIGTERM, _DRAIN_S)

    async def _kill_brokers(self) -> None:
        await self._cluster.kill()
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        await self._cluster.start()

    async def _kill_brokers_amid_end(self) -> None:
        """Kill the brokers when the end of a transaction is decided and not yet in all partitions.

        The restarted coordinator writes the missing markers. Brokers lose markers if the partitions have no leader
        by then.
        """
        await self._cluster.transaction_is_ending(_DEATH_S)
        await asyncio.sleep(self._chance.uniform(0, _DECIDED_S))
        await self._kill_brokers()

    async def _kill_brokers_in_turn(self) -> None:
        """Kill every broker as soon as the one before is up again, while its replicas are not in sync yet.

        Partitions lose their leader while transactions end: then brokers lose markers.
        """
        for node in self._cluster.nodes:
            await self._bounce(node)

    async def _stop_leader(self) -> None:
        await self._stop([await self._cluster.leader(self._pipeline.settings.input_topic, self._choose_partition())])

    async def _stop_brokers(self) -> None:
        await self._stop(self._cluster.nodes)

    async def _lose_answer(self) -> None:
        """Replace the answer to a commit by a connection error: the worker must find out that it has committed."""
        command = ("tests.live.crashing", "denied", "after-commit_transaction", "2")
        worker = await self._start_until(_has_failed, *command)
        await worker.end(signal.SIGTERM, _DRAIN_S)

    async def _deliver_late(self) -> None:
        """Hold the end of a transaction until its worker has given up, and deliver it during a later one."""
        proxies = self._cluster.proxies
        for proxy in proxies:
            proxy.wanted = END_TXN
        await self._wait_until(lambda: any(proxy.has_kept for proxy in proxies))
        for proxy in proxies:
            proxy.wanted = None
        await asyncio.sleep(_REQUEST_TIMEOUT_MS / 1_000 + 0.2)

        async def deliver(kind: int) -> None:
            if (
                kind == PRODUCE and self._chance.random() < 0.5
            ):  # before the states, or between them and the transitions
                for proxy in proxies:
                    if proxy.has_kept:
                        proxy.deliver()
                        await asyncio.sleep(self._chance.uniform(0, 0.3))

        self._set_passes(deliver)
        await self._wait_until(lambda: not any(proxy.has_kept for proxy in proxies))
        self._set_passes(None)

    @staticmethod
    async def _wait_until(happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(_DEATH_S):
            while not happened():
                await asyncio.sleep(0.02)

    async def _delay(self) -> None:
        self._set_delay(self._chance.uniform(0.1, 0.5))
        await asyncio.sleep(4)
        self._set_delay(0)

    async def _cut(self) -> None:
        for _ in range(3):
            for proxy in self._cluster.proxies:
                proxy.cut()
            await asyncio.sleep(self._chance.uniform(0.1, 1))

    async def _half_close(self) -> None:
        for proxy in self._cluster.proxies:
            proxy.half_close()

    async def _crash(self, step: str) -> None:
        commit = str(self._chance.randrange(1, 6))
        await self._start_until(_is_killed, "tests.live.crashing", "killed", step, commit)

    def _choose_partition(self) -> int:
        return self._chance.randrange(PARTITIONS)

    async def _transaction_coordinator(self) -> LocalBroker:
        settings = self._pipeline.settings
        transactional_id = f"{settings.group_id}:{settings.input_topic}:{self._choose_partition()}"
        return await self._cluster.transaction_coordinator(transactional_id)

    async def _bounce(self, node: LocalBroker) -> None:
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        await asyncio.to_thread(node.start)

    async def _stop(self, nodes: Sequence[LocalBroker]) -> None:
        for node in nodes:
            node.pause()
        await asyncio.sleep(2 * _REQUEST_TIMEOUT_MS / 1_000)
        for node in nodes:
            node.resume()

    def _set_passes(self, passes: Callable[[int], Awaitable[None]] | None) -> None:
        for proxy in self._cluster.proxies:
            proxy.passes = passes

    def _set_delay(self, seconds: float) -> None:
        for proxy in self._cluster.proxies:
            proxy.delay_s = seconds


async def _is_killed(worker: WorkerProcess) -> bool:
    return worker.exit_code == -signal.SIGKILL


async def _is_stopped(worker: WorkerProcess) -> bool:
    return worker.is_stopped()


async def _has_failed(worker: WorkerProcess) -> bool:
    return bool(worker.events("lane.failed"))


def schedule(plan: Plan, chance: random.Random) -> list[str]:
    """Every fault of a plan once, in random order; if the plan has a duration, random faults follow."""
    names = list(plan.only or Scene.faults())
    chance.shuffle(names)
    return names if plan.minutes is None else names + chance.choices(names, k=10_000)


async def run(plan: Plan, report: Report, logs: Path) -> None:
    """Run the faults of a plan and fill in the report.

    Raises AssertionError if a worker ends unexpectedly or does not recover; the report is then partial.
    """
    started_s = time.monotonic()
    chance = random.Random(plan.seed)
    async with _stage(plan, report, chance, logs) as (scene, pipeline, cluster):
        await scene.restart_workers()
        over = asyncio.Event()
        tasks = [
            asyncio.create_task(write_steadily(pipeline, steady_traffic(plan.seed), over)),
            asyncio.create_task(scene.sample()),
        ]
        waited_for_share = 0.0 if plan.minutes is None or plan.back_to_back else _WAITED_FOR_SHARE
        waiting = random.Random(plan.seed)
        try:
            for name in schedule(plan, chance):
                report.minutes = (time.monotonic() - started_s) / 60
                if plan.minutes is not None and report.minutes > plan.minutes:
                    break
                await scene.befall(name)
                if waiting.random() < waited_for_share:
                    await scene.recover()
        finally:
            over.set()
            await tasks[0]
        await scene.recover()
        tasks[1].cancel()
        await scene.drain()
        report.minutes = (time.monotonic() - started_s) / 60
        judged = await pipeline.compare()
        if judged.mismatches:
            (logs / MISMATCHES).write_text("\n".join(judged.mismatches))
            await cluster.save(logs)
    report.records, report.dispositions, report.mismatches = judged.records, judged.dispositions, judged.mismatches
    report.conversations, report.operations = judged.conversations, judged.operations
    report.state_bytes = sum(map(len, judged.states.values()))


def broken_promises(report: Report) -> list[str]:
    """A sentence for every promise that a run broke: a mismatch, growth, or a limit exceeded."""
    all_samples = [sample for samples in report.samples.values() for sample in samples]
    resident_bytes = max(sample.resident_bytes for sample in all_samples)
    descriptors = max(sample.descriptors for sample in all_samples)
    broken = report.mismatches + report.growth()
    if resident_bytes > RESIDENT_BYTES_MAX:
        broken.append(f"a worker had {resident_bytes} bytes, more than {RESIDENT_BYTES_MAX}")
    if descriptors > DESCRIPTORS_MAX:
        broken.append(f"a worker had {descriptors} descriptors, more than {DESCRIPTORS_MAX}")
    return broken


@contextlib.asynccontextmanager
async def _stage(
    plan: Plan, report: Report, chance: random.Random, logs: Path
) -> AsyncIterator[tuple[Scene, Pipeline, Cluster]]:
    folder = jars()
    if isinstance(folder, str):
        raise BrokerError(f"needs brokers of its own: {folder}")
    async with Cluster(folder, plan.replicas).running() as cluster:
        settings = {
            "request_timeout_ms": _REQUEST_TIMEOUT_MS,
            "commit_interval_ms": 200,
            "partition_fetch_bytes_max": 65_536,
        }
        pipeline = Pipeline(cluster.bootstrap_servers, f"faults-{report.seed}", logs, **settings)
        try:
            await pipeline.create(plan.replicas)
            yield Scene(cluster, pipeline, report, chance), pipeline, cluster
        except (AssertionError, TimeoutError):
            await cluster.save(logs)
            raise
        finally:
            report.lost_markers = len(cluster.lost_markers())
            report.repaired = _count_repairs(pipeline)
            await pipeline.close()


def _count_repairs(pipeline: Pipeline) -> Counter[str]:
    """How many transactions the workers repaired, by verdict."""
    events = (event for worker in pipeline.workers for event in worker.events("lane.transaction_repaired"))
    return Counter(event["verdict"] for event in events)


def steady_traffic(seed: int, broken: float = 0.01) -> Iterator[Draft]:
    """The traffic that `write_steadily` writes; of `broken` records something is damaged."""
    return records(Traffic(seed=seed, start_ms=now_ms(), records_per_s=_RATE, conversations=200, broken=broken))


async def write_steadily(pipeline: Pipeline, stream: Iterator[Draft], over: asyncio.Event) -> None:
    """Write traffic steadily and retry what failed; a retry may write a record twice, as producers do."""
    batch = list(islice(stream, _RATE))
    while not over.is_set():
        try:
            async with TrafficWriter(pipeline.settings) as writer:
                while not over.is_set():
                    await writer.write(batch)
                    await writer.flush()
                    batch = list(islice(stream, _RATE))
                    await asyncio.sleep(1)
        except ExternalError:
            await asyncio.sleep(1)


def parse(arguments: Sequence[str]) -> Plan:
    """The plan from a command line. Exits with the error and the names of all faults if it is invalid."""
    parser = argparse.ArgumentParser(description="Workers under faults, against three brokers of their own.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--once", action="store_const", const=None, dest="minutes", help="every fault once")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=list(Scene.faults()), default=[],
        help="run only this fault; repeat the option for more of them",
    )  # fmt: skip
    parser.add_argument("--replicas", type=int, default=NODES, choices=range(1, NODES + 1), help="of each topic")
    parser.add_argument("--back-to-back", action="store_true", help="never wait for recovery between faults")
    return Plan(**vars(parser.parse_args(arguments)))


def main() -> None:
    """The long run, from the command line."""
    plan = parse(sys.argv[1:])
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the workers' own logs have the same errors
    print("seed", plan.seed, flush=True)
    logs = Path(tempfile.mkdtemp(prefix="faults-"))
    report = Report(plan.seed)
    try:
        asyncio.run(run(plan, report, logs))
    except (AssertionError, TimeoutError, BrokerError, KafkaError) as error:
        traceback.print_exc()
        sys.exit(f"{report}\nseed {plan.seed}, logs of workers and brokers in {logs}: {error}")
    print(report)
    broken = broken_promises(report)
    if broken:
        sys.exit("\n".join((*broken[:20], f"logs of workers and brokers, and all mismatches, in {logs}")))
    shutil.rmtree(logs)


if __name__ == "__main__":
    main()
