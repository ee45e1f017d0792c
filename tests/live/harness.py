"""Real worker processes on a real broker: fed, disturbed, and judged by what a read_committed reader sees."""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from msgspec import Struct

from consumer.adapters.kafka.records import record_of
from consumer.adapters.kafka.state_log import KafkaStateLog
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.adapters.kafka.writer import KafkaWriter
from consumer.core.record import Record
from consumer.runtime.redrive import is_marker
from consumer.runtime.settings import Settings
from consumer.runtime.state_store import StateStore
from consumer.simulator.traffic import Traffic, records
from tests import model
from tests.live import witnessed
from tests.live.commands import WAIT_S, environ_of, environment
from tests.live.expectation import expect

PARTITIONS = 4
_STEP_S = 15.0
"""For one question to a broker or a worker, which takes a hundredth of it; where faults are, it is asked again."""
_TOLD_MAX = 20


class Pipeline:
    """The four topics of one test, and the workers on them."""

    def __init__(self, bootstrap_servers: str, name: str, logs: Path, **settings: Any) -> None:
        self.settings = Settings(
            bootstrap_servers=bootstrap_servers,
            input_topic=f"{name}-updates",
            state_topic=f"{name}-state",
            transitions_topic=f"{name}-transitions",
            dead_letters_topic=f"{name}-dead-letters",
            group_id=name,
            **{
                "session_timeout_ms": 6_000,
                "heartbeat_interval_ms": 500,
                "transaction_timeout_ms": 5_000,
                "commit_timeout_s": 4.0,
                "drain_s": 5.0,
                "rebalance_timeout_ms": 10_000,
                **settings,
            },
        )
        self._logs = logs
        self.workers: list[WorkerProcess] = []
        """All that were ever started."""

    async def create(self, replicas: int = 1) -> None:
        async with TopicAdmin(self.settings) as admin:
            await admin.create(PARTITIONS, replicas)

    async def feed(self, traffic: Traffic, count: int, skip: int = 0) -> None:
        async with KafkaWriter(self.settings) as writer:
            await writer.write(islice(records(traffic), skip, skip + count))
            await writer.flush()

    async def start_worker(self, *command: str, bootstrap_servers: str | None = None) -> "WorkerProcess":
        """Start `run`, or another module with its arguments in its place."""
        environ = environ_of(self.settings)
        environ["CC_ADMIN_PORT"] = environ["CC_QUERY_PORT"] = "0"
        environ["CC_BOOTSTRAP_SERVERS"] = bootstrap_servers or self.settings.bootstrap_servers
        log = self._logs / f"worker-{len(self.workers) + 1}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *(command or ("consumer", "run")), env=environment(environ), stderr=stderr
            )
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        """Leave no worker behind, whatever the test did."""
        for worker in self.workers:
            await worker.end(signal.SIGKILL, _STEP_S)

    async def caught_up(self, within_s: float = WAIT_S) -> None:
        """Wait until the group has committed everything that was written."""
        await self.committed_up_to(None, within_s)

    async def committed_up_to(self, ends: dict[TopicPartition, int] | None, within_s: float = WAIT_S) -> None:
        """Wait until the group has committed up to these offsets, or to the ends of the input topic."""
        async with asyncio.timeout(within_s):
            while await self._lag_or_unknown(ends):
                await asyncio.sleep(0.2)

    async def _lag_or_unknown(self, ends: dict[TopicPartition, int] | None) -> int:
        """The lag; 1 if the brokers cannot tell just now."""
        try:
            return await self.lag(ends)
        except (KafkaError, TimeoutError, OSError):
            return 1

    async def lag(self, ends: dict[TopicPartition, int] | None = None) -> int:
        """Records that the group has not committed, of those before `ends`."""
        consumer = await self._consumer()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        try:
            await asyncio.wait_for(admin.start(), _STEP_S)
            tps = [TopicPartition(self.settings.input_topic, each) for each in range(PARTITIONS)]
            ends = await consumer.end_offsets(tps) if ends is None else ends
            try:
                committed = await admin.list_consumer_group_offsets(self.settings.group_id, partitions=tps)
            except GroupCoordinatorNotAvailableError:  # the broker is still making its topic of offsets
                return int(sum(ends.values())) + 1
            if not committed.keys() >= set(tps):  # another broker coordinates the group now: aiokafka says no more
                return sum(map(int, ends.values())) + 1
            return int(sum(max(0, ends[tp] - max(0, committed[tp].offset)) for tp in tps))
        finally:
            await admin.close()
            await consumer.stop()

    async def ends(self, topic: str, isolation: str = "read_committed") -> dict[TopicPartition, int]:
        """The end of each partition: before the first open transaction, unless uncommitted records count."""
        consumer = await self._consumer(isolation)
        try:
            found = await consumer.end_offsets([TopicPartition(topic, each) for each in range(PARTITIONS)])
        finally:
            await consumer.stop()
        return dict(found)

    async def committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        async with asyncio.timeout(_STEP_S):
            await admin.start()
            try:
                return dict(await admin.list_consumer_group_offsets(self.settings.group_id))
            finally:
                await admin.close()

    async def reset_offsets(
        self, to: int | Mapping[TopicPartition, int] | Mapping[TopicPartition, OffsetAndMetadata] = 0
    ) -> None:
        """What `kafka-consumer-groups --reset-offsets` does for a group without members, metadata kept if given."""
        async with asyncio.timeout(_STEP_S):
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.settings.bootstrap_servers,
                group_id=self.settings.group_id,
                enable_auto_commit=False,
            )
            await consumer.start()
            try:
                tps = [TopicPartition(self.settings.input_topic, each) for each in range(PARTITIONS)]
                consumer.assign(tps)
                wanted = {tp: to if isinstance(to, int) else to[tp] for tp in tps}
                await consumer.commit({tp: (at, "") if isinstance(at, int) else at for tp, at in wanted.items()})
            finally:
                await consumer.stop()

    def change(self, **settings: Any) -> None:
        """Start further workers with other settings."""
        self.settings = msgspec.structs.replace(self.settings, **settings)

    async def read(self, topic: str) -> list[Record]:
        """Everything a read_committed reader sees of a topic, by partition and offset."""
        consumer = await self._consumer()
        tps = [TopicPartition(topic, each) for each in range(PARTITIONS)]
        found: list[Record] = []
        try:
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            await consumer.seek_to_beginning(*tps)
            async with asyncio.timeout(WAIT_S):
                while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                    for fetched in (await consumer.getmany(timeout_ms=200, max_records=5_000)).values():
                        found += map(record_of, fetched)
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def states(self) -> dict[str, bytes]:
        """The published state of every conversation."""
        return _latest(await self.read(self.settings.state_topic))

    async def judge(self) -> "Judgement":
        """Compare the outputs with the model of the input; raises AssertionError where they differ."""
        judged = await self.compare()
        assert not judged.mismatches, "\n".join(judged.mismatches[:_TOLD_MAX])
        return judged

    async def compare(self) -> "Judgement":
        """Compare the outputs with the model of the input, and the state with what a restore makes of it."""
        settings = self.settings
        await self._all_ended(settings.state_topic, settings.transitions_topic, settings.dead_letters_topic)
        source = await self.read(settings.input_topic)
        state_log = await self.read(settings.state_topic)
        log = [json.loads(record.value or b"") for record in await self.read(settings.transitions_topic)]
        dead = [each for each in await self.read(settings.dead_letters_topic) if not is_marker(each)]
        expected = expect(source, model.Rules(record_bytes_max=settings.record_bytes_max))
        states = _latest(state_log)
        mismatches = [
            *_different("the state of", documents_of(states), expected.documents),
            *_different("the transition", model.net(log), expected.standing),
            *_out_of_order(log),
            *_wrong_letters(dead, expected.rejected),
            *_different("after a restore the state of", await self._restored(), states),
            *witnessed.misremembered(self.events("witness.state"), state_log),
            *witnessed.miscounted(self.events("witness.committed"), expected.fates, self._silenced()),
        ]
        counts = (len(source), len(states), len(log), len(dead))
        return Judgement(*counts, expected.dispositions(), states, mismatches)

    async def _all_ended(self, *topics: str) -> None:
        """Wait until no transaction is open: a commit is answered before its markers are in every topic."""
        async with asyncio.timeout(WAIT_S):
            for topic in topics:
                while await self.ends(topic) != await self.ends(topic, "read_uncommitted"):
                    await asyncio.sleep(0.2)

    async def _restored(self) -> dict[str, bytes]:
        """What a lane has in memory when it has restored."""
        found: dict[str, bytes] = {}
        for partition in range(PARTITIONS):
            store = StateStore(self.settings.rules())
            async for chunk in KafkaStateLog(self.settings).read(partition, 0):
                store.restore(chunk.entries)
                while store.settle(1_000):
                    pass
            found |= dict(store.items())
        return found

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Log lines of some events so far, of all workers."""
        return [line for worker in self.workers for line in worker.events(*names)]

    def _silenced(self) -> int:
        """How many lanes may have committed without telling: killed, or closed amid a commit or after a failure."""
        count = 0
        for worker in self.workers:
            failed: set[int] = set()
            for line in worker.events("lane.failed", "lane.fenced", "lane.closed"):
                if line["event"] != "lane.closed":
                    failed.add(line["partition"])
                elif line["partition"] in failed or line["reason"] == "abandoned":
                    count += 1
                    failed.discard(line["partition"])
            count += sum(
                line.get("others", 0) for line in worker.events("lane.failed", "lane.fenced", "lane.stands_still")
            )
            count += PARTITIONS if worker.exit_code == -signal.SIGKILL else len(failed)
        return count

    async def _consumer(self, isolation: str = "read_committed") -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers,
            isolation_level=isolation,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with asyncio.timeout(_STEP_S):
            await consumer.start()
        return consumer


class Judgement(Struct, frozen=True):
    """What a comparison has seen."""

    records: int
    conversations: int
    operations: int
    dead: int
    dispositions: Counter[str]
    states: dict[str, bytes]
    mismatches: list[str]
    """A sentence for everything that is not as it has to be."""


class WorkerProcess:
    """A real `run`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, within_s: float = WAIT_S) -> int:
        """Wait for the end; returns the exit code."""
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def is_stopped(self) -> bool:
        """Whether the process has stopped by a signal, as `paused` of `crashing` does."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:  # it has ended
            return False
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    async def end(self, number: signal.Signals, within_s: float = WAIT_S) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.ended(within_s)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Log lines of some events so far."""
        marks = [f'"event": "{name}"' for name in names]
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and any(mark in line for mark in marks)]

    async def logged(self, name: str, within_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for the first line of an event."""
        async with asyncio.timeout(within_s):
            while not (found := self.events(name)):
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.05)
        return found[0]

    async def exposition(self, within_s: float = _STEP_S) -> str:
        """What a scrape gets. Raises OSError if the worker does not answer."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics", within_s)

    async def metrics(self, within_s: float = _STEP_S) -> dict[str, float]:
        """Sums of all samples by metric name. Raises OSError if the worker does not answer."""
        sums: dict[str, float] = defaultdict(float)
        for line in (await self.exposition(within_s)).splitlines():
            if line and not line.startswith("#"):
                sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
        return sums

    async def ready(self) -> int:
        """The status of the readiness probe."""
        return (await self.readiness())[0]

    async def readiness(self) -> tuple[int, dict[str, str]]:
        """The status of the readiness probe, and what it says by check."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        return await asyncio.to_thread(_probe, f"http://127.0.0.1:{port}/readyz")

    async def page(self) -> str:
        """The live page's first."""
        port = (await self.logged("consumer.starting"))["query_port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/", _STEP_S)

    def text(self) -> str:
        return self._log.read_text()


def _latest(state_log: list[Record]) -> dict[str, bytes]:
    """The last state of each conversation. No conversation is evicted in these tests."""
    found: dict[str, bytes] = {}
    for record in state_log:
        assert record.key is not None
        assert record.value is not None
        found[record.key.decode()] = record.value
    return found


def documents_of(states: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """States without what refers to arrival."""
    documents: dict[str, dict[str, Any]] = {key: json.loads(state) for key, state in states.items()}
    for document in documents.values():
        del document["source"]
    return documents


def _different(what: str, found: Mapping[str, object], expected: Mapping[str, object]) -> Iterator[str]:
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            yield f"{what} {key} is {found.get(key)!r:.2000}, not {expected.get(key)!r:.2000}"


def _out_of_order(log: list[dict[str, Any]]) -> Iterator[str]:
    try:
        model.check_log(log)
    except AssertionError as error:
        yield f"the log of transitions is out of order: {error}"


def _wrong_letters(dead: list[Record], rejected: Mapping[tuple[int, int], Record]) -> Iterator[str]:
    told = Counter(_source(record) for record in dead)
    yield from (f"{count} dead letters of {place}" for place, count in told.items() if count > 1)
    yield from (f"no dead letter of {place}" for place in rejected.keys() - told.keys())
    yield from (f"a dead letter of {place}, which could be used" for place in told.keys() - rejected.keys())
    for record in dead:
        original = rejected.get(_source(record))
        if original is not None and (record.key, record.value) != (original.key, original.value):
            yield f"the dead letter of {_source(record)} has other bytes"


def _source(record: Record) -> tuple[int, int]:
    headers = {name: value for name, value in record.headers if value is not None}
    return int(headers["cc-source-partition"]), int(headers["cc-source-offset"])


def _get(url: str, within_s: float) -> str:
    with urllib.request.urlopen(url, timeout=within_s) as answer:
        return str(answer.read().decode())


def _probe(url: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=_STEP_S) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
