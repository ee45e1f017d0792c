"""Real worker processes on a real broker: fed, disturbed, and judged by what a read_committed reader sees."""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from consumer.adapters.kafka_topics import TopicAdmin
from consumer.adapters.kafka_writer import KafkaWriter
from consumer.core.record import Record
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Traffic, records
from tests import model

PARTITIONS = 4
_STEP_S = 15.0


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
        self._workers: list[WorkerProcess] = []

    async def create(self) -> None:
        async with TopicAdmin(self.settings) as admin:
            await admin.create(PARTITIONS, 1)

    async def feed(self, traffic: Traffic, count: int, skip: int = 0) -> None:
        async with KafkaWriter(self.settings) as writer:
            await writer.write(islice(records(traffic), skip, skip + count))
            await writer.flush()

    async def start_worker(self, *command: str, bootstrap_servers: str | None = None) -> "WorkerProcess":
        """Start `run`, or another module with its arguments in its place."""
        fields = self.settings.__struct_fields__
        default = Settings(bootstrap_servers="x")
        environ = {
            f"CC_{name.upper()}": str(getattr(self.settings, name))
            for name in fields
            if getattr(self.settings, name) != getattr(default, name)
        }
        environ["CC_ADMIN_PORT"] = environ["CC_QUERY_PORT"] = "0"
        environ["CC_BOOTSTRAP_SERVERS"] = bootstrap_servers or self.settings.bootstrap_servers
        log = self._logs / f"worker-{len(self._workers) + 1}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *(command or ("consumer", "run")), env={**_environ(), **environ}, stderr=stderr
            )
        worker = WorkerProcess(process, log)
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        """Leave no worker behind, whatever the test did."""
        for worker in self._workers:
            await worker.end(signal.SIGKILL, _STEP_S)

    async def caught_up(self, within_s: float) -> None:
        """Wait until the group has committed everything that was written."""
        async with asyncio.timeout(within_s):
            while await self.lag():
                await asyncio.sleep(0.2)

    async def lag(self) -> int:
        consumer = await self._consumer()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        try:
            await admin.start()
            tps = [TopicPartition(self.settings.input_topic, each) for each in range(PARTITIONS)]
            ends = await consumer.end_offsets(tps)
            try:
                committed = await admin.list_consumer_group_offsets(self.settings.group_id, partitions=tps)
            except GroupCoordinatorNotAvailableError:  # the broker is still making its topic of offsets
                return int(sum(ends.values())) + 1
            return int(sum(ends[tp] - max(0, committed[tp].offset) for tp in tps))
        finally:
            await admin.close()
            await consumer.stop()

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """The end of each partition."""
        consumer = await self._consumer()
        try:
            found = await consumer.end_offsets([TopicPartition(topic, each) for each in range(PARTITIONS)])
        finally:
            await consumer.stop()
        return dict(found)

    async def reset_offsets(self) -> None:
        """What `kafka-consumer-groups --reset-offsets --to-earliest` does for a group without members."""
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
                await consumer.commit(dict.fromkeys(tps, (0, "")))
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
            async with asyncio.timeout(60):
                while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                    for fetched in (await consumer.getmany(timeout_ms=200, max_records=5_000)).values():
                        found += [
                            Record(e.topic, e.partition, e.offset, e.timestamp, e.key, e.value, e.headers)
                            for e in fetched
                        ]
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def states(self) -> dict[str, bytes]:
        """The published state of every conversation."""
        found: dict[str, bytes] = {}
        for record in await self.read(self.settings.state_topic):
            assert record.key is not None
            assert record.value is not None
            found[record.key.decode()] = record.value
        return found

    async def judge(self) -> "Judgement":
        """Compare the outputs with the model of the input; raises AssertionError where they differ."""
        settings = self.settings
        source = await self.read(settings.input_topic)
        rules = model.Rules(record_bytes_max=settings.record_bytes_max)
        states = await self.states()
        documents = {key: json.loads(state) for key, state in states.items()}
        for document in documents.values():
            del document["source"]
        log = [json.loads(record.value or b"") for record in await self.read(settings.transitions_topic)]
        dead = await self.read(settings.dead_letters_topic)
        expected = model.conversations(source, rules)
        assert documents == expected
        model.check_log(log)
        standing = {each["id"]: each for found in model.standing(source, rules).values() for each in found}
        assert model.net(log) == standing
        rejected = {
            (record.partition, record.offset): record
            for record in source
            if isinstance(model.judge(record, rules), model.Rejected)
        }
        told = [_source(record) for record in dead]
        assert len(told) == len(set(told)), "a dead letter was published twice"
        assert set(told) == set(rejected)
        for record in dead:
            original = rejected[_source(record)]
            assert (record.key, record.value) == (original.key, original.value)
        return Judgement(len(source), len(states), len(log), len(dead), states)

    async def _consumer(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with asyncio.timeout(_STEP_S):
            await consumer.start()
        return consumer


class Judgement:
    """What a comparison that succeeded has seen."""

    def __init__(self, records: int, conversations: int, operations: int, dead: int, states: dict[str, bytes]) -> None:
        self.records, self.conversations, self.operations, self.dead = records, conversations, operations, dead
        self.states = states


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

    async def ended(self, within_s: float) -> int:
        """Wait for the end; returns the exit code."""
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    async def end(self, number: signal.Signals, within_s: float) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.ended(within_s)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event so far."""
        return [line for line in self._lines() if line.get("event") == name]

    async def logged(self, name: str, within_s: float = _STEP_S) -> dict[str, Any]:
        """Wait for the first line of an event."""
        async with asyncio.timeout(within_s):
            while not (found := self.events(name)):
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.05)
        return found[0]

    async def metrics(self) -> dict[str, float]:
        """Sums of all samples by metric name."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        text = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
        sums: dict[str, float] = defaultdict(float)
        for line in text.splitlines():
            if line and not line.startswith("#"):
                sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
        return sums

    async def ready(self) -> int:
        """The status of the readiness probe."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        return await asyncio.to_thread(_status, f"http://127.0.0.1:{port}/readyz")

    def text(self) -> str:
        return self._log.read_text()

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self._log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def _source(record: Record) -> tuple[int, int]:
    headers = {name: value for name, value in record.headers if value is not None}
    return int(headers["cc-source-partition"]), int(headers["cc-source-offset"])


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CC_")}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_STEP_S) as answer:
        return str(answer.read().decode())


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=_STEP_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def now_ms() -> int:
    return time.time_ns() // 1_000_000
