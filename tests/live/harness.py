"""The topics and workers of a test on a real broker, and the comparison of their committed outputs with the model."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from msgspec import Struct

from consumer.core.record import Record
from consumer.engine.dead_letters import is_marker
from consumer.engine.state_store import StateStore
from consumer.kafka.coordinator import Group, error_codes
from consumer.kafka.protocol import StableOffsetsRequest
from consumer.kafka.records import to_record
from consumer.kafka.state_log import KafkaStateLog
from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from tests import model, tuned
from tests.live import contract, witnessed
from tests.live.commands import WAIT_S, environ_of, environment
from tests.live.expectation import expect
from tests.live.worker_process import WorkerProcess

PARTITIONS = 4
_STEP_S = 15.0
"""Timeout of one request to a broker, which takes a hundredth of it."""
_MISMATCHES_MAX = 20
_UNSTABLE_OFFSET_COMMIT = 88

Documents = dict[str, dict[str, Any]]
"""The states of conversations as JSON without `source`, by conversation id."""


class Pipeline:
    """The four topics of one test, and the workers on them, which run the engine of CC_ENGINE."""

    def __init__(self, bootstrap_servers: str, name: str, logs: Path, **settings: Any) -> None:
        self.settings = Settings(
            bootstrap_servers=bootstrap_servers,
            input_topic=f"{name}-updates",
            state_topic=f"{name}-state",
            transitions_topic=f"{name}-transitions",
            dead_letters_topic=f"{name}-dead-letters",
            group_id=name,
            session_timeout_ms=6_000,
            commit_timeout_s=3.9,
            drain_s=5.0,
            engine=os.environ.get("CC_ENGINE", "auto"),  # type: ignore[arg-type]  # a worker checks it
        )
        self.change(**settings)
        self._logs = logs
        self.workers: list[WorkerProcess] = []
        """All workers that were started, in this order."""

    async def create(self, replicas: int = 1) -> None:
        async with TopicAdmin(self.settings) as admin:
            await admin.create(PARTITIONS, replicas)

    async def write_traffic(self, traffic: Traffic, count: int, skip: int = 0) -> None:
        async with TrafficWriter(self.settings) as writer:
            await writer.write(islice(records(traffic), skip, skip + count))
            await writer.flush()

    async def start_worker(
        self, *command: str, bootstrap_servers: str | None = None, tree: Path | None = None
    ) -> WorkerProcess:
        """Start `run`, or another module with its arguments instead; `tree` is that of another version."""
        environ = environ_of(self.settings)
        environ["CC_ADMIN_PORT"] = environ["CC_QUERY_PORT"] = "0"
        environ["CC_BOOTSTRAP_SERVERS"] = bootstrap_servers or self.settings.bootstrap_servers
        log = self._logs / f"worker-{len(self.workers) + 1}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *tuned.python(self.settings.tuning), *(command or ("consumer", "run")),
                env=environment(environ), stderr=stderr, cwd=tree,
            )  # fmt: skip
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        """Kill all workers that still run."""
        for worker in self.workers:
            await worker.end(signal.SIGKILL, _STEP_S)

    async def caught_up(self, within_s: float = WAIT_S) -> None:
        """Wait until the group has committed all records of the input."""
        await self.committed_up_to(None, within_s)

    async def committed_up_to(self, ends: dict[TopicPartition, int] | None, within_s: float = WAIT_S) -> None:
        """Wait until the group has committed up to these offsets, or to the ends of the input topic."""
        async with asyncio.timeout(within_s):
            while await self._lag_or_unknown(ends):
                await asyncio.sleep(0.2)

    async def _lag_or_unknown(self, ends: dict[TopicPartition, int] | None) -> int:
        """The lag; 1 if the brokers do not answer."""
        try:
            return await self.lag(ends)
        except (KafkaError, TimeoutError, OSError):
            return 1

    async def settled_lag(self) -> int:
        """Records of the input that the group has not committed, once no commit is under way."""
        await self._wait_for_offset_markers()
        return await self.lag()

    async def lag(self, ends: dict[TopicPartition, int] | None = None) -> int:
        """Records that the group has not committed, of those before `ends`; a commit under way may be left out."""
        consumer = await self._consumer()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        try:
            await asyncio.wait_for(admin.start(), _STEP_S)
            tps = _partitions_of(self.settings.input_topic)
            ends = await consumer.end_offsets(tps) if ends is None else ends
            try:
                committed = await admin.list_consumer_group_offsets(self.settings.group_id, partitions=tps)
            except GroupCoordinatorNotAvailableError:  # the broker is still creating __consumer_offsets
                return int(sum(ends.values())) + 1
            if not committed.keys() >= set(tps):  # the coordinator has moved: aiokafka omits partitions
                return sum(map(int, ends.values())) + 1
            return int(sum(max(0, ends[tp] - max(0, committed[tp].offset)) for tp in tps))
        finally:
            await admin.close()
            await consumer.stop()

    async def ends(self, topic: str, isolation: str = "read_committed") -> dict[TopicPartition, int]:
        """The end offset of every partition; for `read_committed` that is the start of the first open transaction."""
        consumer = await self._consumer(isolation)
        try:
            return dict(await consumer.end_offsets(_partitions_of(topic)))
        finally:
            await consumer.stop()

    async def committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """The offsets that the group has committed."""
        await self._wait_for_offset_markers()
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
        """Commit offsets for a group without members, as `kafka-consumer-groups --reset-offsets` does.

        `to` gives one offset for all partitions or one for each of them, with its metadata if it has any.
        """
        async with asyncio.timeout(_STEP_S):
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.settings.bootstrap_servers,
                group_id=self.settings.group_id,
                enable_auto_commit=False,
            )
            await consumer.start()
            try:
                tps = _partitions_of(self.settings.input_topic)
                consumer.assign(tps)
                offsets = {tp: to if isinstance(to, int) else to[tp] for tp in tps}
                await consumer.commit({tp: (at, "") if isinstance(at, int) else at for tp, at in offsets.items()})
            finally:
                await consumer.stop()

    def change(self, **settings: Any) -> None:
        """Change settings, and the tuning, of workers that are started from now on."""
        self.settings = tuned.with_changes(self.settings, **settings)

    async def read(self, topic: str) -> list[Record]:
        """The committed records of a topic, by partition and offset. Those of outputs have to fit their schemas."""
        fetched = await self.read_any(topic)
        contract.check(self.settings, topic, fetched)
        return fetched

    async def read_any(self, topic: str) -> list[Record]:
        """The committed records of a topic, by partition and offset, whatever is in them."""
        consumer = await self._consumer()
        tps = _partitions_of(topic)
        fetched: list[Record] = []
        try:
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            async with asyncio.timeout(WAIT_S):
                while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                    for batch in (await consumer.getmany(timeout_ms=200, max_records=5_000)).values():
                        fetched += map(to_record, batch)
        finally:
            await consumer.stop()
        return sorted(fetched, key=lambda record: (record.partition, record.offset))

    async def states(self) -> dict[str, bytes]:
        """The published state of every conversation."""
        return _latest(await self.read(self.settings.state_topic))

    async def judge(self) -> "Judgement":
        """Compare the outputs with the model of the input; raises AssertionError where they differ."""
        judged = await self.compare()
        assert not judged.mismatches, "\n".join(judged.mismatches[:_MISMATCHES_MAX])
        return judged

    async def compare(self, known: Callable[[Documents], Documents] = lambda documents: documents) -> "Judgement":
        """Compare the outputs with the model of the input, and the state topic with what a restore reads from it.

        `known` leaves of the states what all versions that wrote them know.
        """
        settings = self.settings
        await self._wait_for_markers(settings.state_topic, settings.transitions_topic, settings.dead_letters_topic)
        source = await self.read(settings.input_topic)
        state_log = await self.read(settings.state_topic)
        log = [json.loads(record.value or b"") for record in await self.read(settings.transitions_topic)]
        dead = [record for record in await self.read(settings.dead_letters_topic) if not is_marker(record)]
        expected = expect(source, model.Rules(record_bytes_max=settings.record_bytes_max))
        states = _latest(state_log)
        mismatches = [
            *_compare("the state of", known(documents_of(states)), known(expected.documents)),
            *_compare("the transition", model.net(log), expected.standing),
            *_check_order(log),
            *_check_letters(dead, expected.rejected),
            *_compare("after a restore the state of", await self._restore(), states),
            *witnessed.find_wrong_memory(self.events("witness.state"), state_log),
            *witnessed.find_wrong_counts(
                self.events("witness.committed"), expected.fates, self._count_silent_lanes(), self._count_aborts()
            ),
        ]
        counts = (len(source), len(states), len(log), len(dead))
        return Judgement(*counts, expected.dispositions(), states, mismatches)

    async def _wait_for_markers(self, *topics: str) -> None:
        """Wait until no transaction is open: a broker answers a commit before its markers are in every topic."""
        async with asyncio.timeout(WAIT_S):
            for topic in topics:
                while await self.ends(topic) != await self.ends(topic, "read_uncommitted"):
                    await asyncio.sleep(0.2)

    async def _wait_for_offset_markers(self) -> None:
        """Wait until no commit of the group is under way: until then a broker gives the offsets before it."""
        client = AIOKafkaClient(bootstrap_servers=self.settings.bootstrap_servers)
        request = StableOffsetsRequest(self.settings.group_id, self.settings.input_topic, [*range(PARTITIONS)])
        async with asyncio.timeout(WAIT_S):
            try:
                await client.bootstrap()
                group = Group(client, self.settings.group_id)
                while _UNSTABLE_OFFSET_COMMIT in error_codes(await group.ask(request)):
                    await asyncio.sleep(0.1)
            finally:
                await client.close()

    async def _restore(self) -> dict[str, bytes]:
        """The states that the lanes have in memory after a restore."""
        restored: dict[str, bytes] = {}
        for partition in range(PARTITIONS):
            store = StateStore(self.settings.rules())
            async for chunk in KafkaStateLog(self.settings).read(partition, 0):
                store.restore(chunk.entries)
                while store.settle(1_000):
                    pass
            restored |= dict(store.items())
        return restored

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The log lines of these events so far, of all workers."""
        return [line for worker in self.workers for line in worker.events(*names)]

    def _count_aborts(self) -> Counter[int]:
        """How often a lane aborted what had lost its markers, by partition."""
        repairs = self.events("lane.transaction_repaired")
        return Counter(repair["partition"] for repair in repairs if repair["verdict"] == "abort")

    def _count_silent_lanes(self) -> int:
        """How many lanes may have committed without a log line: killed, or closed amid a commit or after a failure."""
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
            count += PARTITIONS if (worker.exit_code or 0) < 0 else len(failed)
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
    """The result of a comparison, with the number of records compared."""

    records: int
    conversations: int
    operations: int
    dead: int
    dispositions: Counter[str]
    states: dict[str, bytes]
    mismatches: list[str]
    """A sentence for every difference from the model."""


def _latest(state_log: list[Record]) -> dict[str, bytes]:
    """The last state of each conversation. No conversation is evicted in these tests."""
    latest: dict[str, bytes] = {}
    for record in state_log:
        assert record.key is not None
        assert record.value is not None
        latest[record.key.decode()] = record.value
    return latest


def _partitions_of(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


def documents_of(states: dict[str, bytes]) -> Documents:
    """The states as JSON without `source`, which depends on arrival."""
    documents: Documents = {key: json.loads(state) for key, state in states.items()}
    for document in documents.values():
        del document["source"]
    return documents


def _compare(what: str, actual: Mapping[str, object], expected: Mapping[str, object]) -> Iterator[str]:
    for key in sorted(actual.keys() | expected.keys()):
        if actual.get(key) != expected.get(key):
            yield f"{what} {key} is {actual.get(key)!r:.2000}, not {expected.get(key)!r:.2000}"


def _check_order(log: list[dict[str, Any]]) -> Iterator[str]:
    try:
        model.check_log(log)
    except AssertionError as error:
        yield f"the log of transitions is out of order: {error}"


def _check_letters(dead: list[Record], rejected: Mapping[tuple[int, int], Record]) -> Iterator[str]:
    sources = Counter(_source(record) for record in dead)
    yield from (f"{count} dead letters of {source}" for source, count in sources.items() if count > 1)
    yield from (f"no dead letter of {source}" for source in rejected.keys() - sources.keys())
    yield from (f"a dead letter of {source}, which could be used" for source in sources.keys() - rejected.keys())
    for record in dead:
        original = rejected.get(_source(record))
        if original is not None and (record.key, record.value) != (original.key, original.value):
            yield f"the dead letter of {_source(record)} has other bytes"


def _source(record: Record) -> tuple[int, int]:
    """The partition and offset of the record that a dead letter copies."""
    headers = {name: value for name, value in record.headers if value is not None}
    return int(headers["cc-source-partition"]), int(headers["cc-source-offset"])


def now_ms() -> int:
    return time.time_ns() // 1_000_000
