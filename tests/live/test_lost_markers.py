"""Brokers that lose transaction markers (KAFKA-20734), and workers that end the transactions left open.

Two brokers: the steady one coordinates the transactions; the fragile one leads the partitions that must lose their
marker. A worker pauses right before it ends a transaction, the fragile broker is killed, and the transaction ends.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
from aiokafka import AIOKafkaProducer
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from consumer.engine.output import Output
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.republisher import Republisher, Scope
from consumer.preflight.topic_checks import plans
from consumer.simulator.traffic import Draft, Traffic
from consumer.worker.ports import RetriableError
from tests.live.cluster import NODES, Cluster
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.placed_cluster import CONSUMER_OFFSETS, PlacedCluster
from tests.live.stream import of_partition, write
from tests.live.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(600)

Verdict = Literal["commit", "abort"]

PARTITION = 0
COMMIT_RECORDS = 20
COUNT = 10 * COMMIT_RECORDS
WITHIN_S = 180.0
MOMENT_S = 1.0

ROUNDS = 12
"""How often all brokers are killed at the end of a transaction, at most; most rounds lose a marker."""
DECIDING_S = 0.005
"""A fraction of the time in which the end of a transaction reaches the partitions."""
ROUND_COUNT = 3_000
UNAVAILABLE = 69


class Stage(Struct):
    """A pipeline that loses the markers of some topics when its fragile broker is killed."""

    cluster: PlacedCluster
    pipeline: Pipeline
    lost: frozenset[str]
    """The topics on the fragile broker, which lose markers."""
    drafts: Iterator[Draft]

    @property
    def transactional_id(self) -> str:
        """The transactional id of the lane under test."""
        settings = self.pipeline.settings
        return f"{settings.group_id}:{settings.input_topic}:{PARTITION}"

    async def write_traffic(self, count: int) -> None:
        """Write to one partition only, so that one lane alone has transactions."""
        await write(self.pipeline.settings, islice(self.drafts, count))

    async def start_worker(self, *fates: str) -> WorkerProcess:
        return await self.pipeline.start_worker(
            *(("tests.live.crashing", *fates) if fates else ("tests.live.witness",))
        )

    async def stop_before_end(self, *fates: str) -> WorkerProcess:
        """Start a worker that pauses right before it ends its second transaction, and kill the fragile broker."""
        await self.write_traffic(COUNT)
        worker = await self.start_worker("paused", "before-commit_transaction", "2", *fates)
        await wait_until(worker.is_stopped)
        await asyncio.to_thread(self.cluster.fragile.kill)
        for topic in self.lost:
            await self.cluster.has_no_leader(topic)
        assert self.cluster.lost_markers() == []
        return worker

    async def abort(self) -> None:
        """Fence the lane's owner, as a worker does when it opens a lane; this aborts the open transaction."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.cluster.bootstrap_servers, transactional_id=self.transactional_id
        )
        async with asyncio.timeout(WITHIN_S), producer:
            pass

    async def wait_for_lost_markers(self) -> None:
        """Wait until the broker has logged the markers that it skipped; they must be the intended ones."""
        await wait_until(lambda: len(self.cluster.lost_markers()) >= len(self.lost))
        lost = self.cluster.lost_markers()
        assert {marker.transactional_id for marker in lost} == {self.transactional_id}
        assert {marker.partition.topic for marker in lost} == self.lost

    async def heal(self) -> None:
        """Restart the fragile broker, and write more records."""
        await asyncio.to_thread(self.cluster.fragile.start)
        await self.write_traffic(COUNT)

    async def assert_repaired(self, worker: WorkerProcess, verdict: Verdict) -> None:
        """Assert that all is committed and equals the model, and that the worker reports the repair."""
        await catch_up(self.pipeline, worker, WITHIN_S)
        repaired_total = await count_repairs(worker, verdict)
        assert await worker.end(signal.SIGTERM, WITHIN_S) == 0, worker.text()[-3_000:]
        judged = await self.pipeline.judge()
        assert judged.records == 2 * COUNT
        events = worker.events("lane.transaction_repaired")
        assert {(event["partition"], event["verdict"], frozenset(event["hanging"])) for event in events} == {
            (PARTITION, verdict, self.lost)
        }
        assert repaired_total > 0


@pytest.fixture
async def stage(request: pytest.FixtureRequest, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Stage]:
    """Its parameter names the topics that lose markers: fields of the settings, or the brokers' own topic."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        # With a static id a successor replaces a killed member at once, without waiting for its session to end.
        pipeline = Pipeline(
            cluster.bootstrap_servers, unique_name("p"), tmp_path,
            group_instance_id="worker", session_timeout_ms=45_000, commit_timeout_s=26.0,
            commit_records_max=COMMIT_RECORDS,
        )  # fmt: skip
        lost = frozenset(getattr(pipeline.settings, name, name) for name in request.param)
        nodes = dict.fromkeys(lost, cluster.fragile)
        await cluster.create_internal_topics(nodes.get(CONSUMER_OFFSETS, cluster.steady))
        for plan in plans(pipeline.settings):
            await cluster.create_topic(plan.name, [nodes.get(plan.name, cluster.steady)] * PARTITIONS, plan.configs)
        try:
            traffic = Traffic(seed=1, start_ms=now_ms(), conversations=100, broken=0.2)  # rich in dead letters
            yield Stage(cluster, pipeline, lost, of_partition(PARTITION, traffic))
        finally:
            await pipeline.close()


async def catch_up(pipeline: Pipeline, worker: WorkerProcess, within_s: float) -> None:
    """Wait until all is committed; fail with the end of the worker's log if it takes too long."""
    try:
        await pipeline.caught_up(within_s)
    except TimeoutError:
        pytest.fail(f"not all is committed within {within_s:g} s: {worker.text()[-3_000:]}")


async def wait_until(happened: Callable[[], bool]) -> None:
    """Wait until `happened` is true."""
    async with asyncio.timeout(WITHIN_S):
        while not happened():
            await asyncio.sleep(0.05)


async def count_repairs(worker: WorkerProcess, verdict: Verdict) -> float:
    """The number of repaired transactions with a verdict, by the worker's metrics."""
    families = text_string_to_metric_families(await worker.exposition())
    samples = (sample for family in families for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == "conversation_transactions_repaired_total" and sample.labels == {"verdict": verdict}
    )


OFFSETS = pytest.param((CONSUMER_OFFSETS,), id="offsets")
TRANSITIONS = pytest.param(("transitions_topic",), id="transitions")
LETTERS_AND_OFFSETS = pytest.param(("dead_letters_topic", CONSUMER_OFFSETS), id="dead-letters-and-offsets")
STATE = pytest.param(("state_topic",), id="state")


@pytest.mark.parametrize("stage", [OFFSETS, LETTERS_AND_OFFSETS], indirect=True)
async def test_successor_commits_what_lost_its_marker(stage: Stage) -> None:
    """The worker dies after a commit that lost markers.

    If it had begun its next transaction, an abort of that one would abort the hanging records too.
    """
    worker = await stage.stop_before_end()
    worker.send(signal.SIGCONT)
    await stage.wait_for_lost_markers()
    await asyncio.sleep(MOMENT_S)
    await worker.end(signal.SIGKILL, WITHIN_S)
    await stage.heal()
    await stage.assert_repaired(await stage.start_worker(), "commit")


@pytest.mark.parametrize("stage", [TRANSITIONS, STATE], indirect=True)
async def test_owner_commits_what_lost_its_marker(stage: Stage) -> None:
    """The worker keeps running. It must abort its next transaction, which would abort the hanging records too."""
    worker = await stage.stop_before_end("denied", "after-send_offsets_to_transaction", "3")
    worker.send(signal.SIGCONT)
    await stage.wait_for_lost_markers()
    await stage.heal()
    await stage.assert_repaired(worker, "commit")


@pytest.mark.parametrize("stage", [STATE], indirect=True)
async def test_successor_aborts_what_lost_its_marker(stage: Stage) -> None:
    """The worker dies within a transaction; another owner aborts it and dies as well.

    The next transaction must not commit the hanging records.
    """
    worker = await stage.stop_before_end()
    await worker.end(signal.SIGKILL, WITHIN_S)
    await stage.abort()
    await stage.wait_for_lost_markers()
    await stage.heal()
    await stage.assert_repaired(await stage.start_worker(), "abort")


@pytest.mark.parametrize("stage", [TRANSITIONS], indirect=True)
async def test_owner_aborts_what_lost_its_marker_at_opening(stage: Stage) -> None:
    """The marker is lost by the InitProducerId of the worker that has to repair it."""
    worker = await stage.stop_before_end()
    await worker.end(signal.SIGKILL, WITHIN_S)
    successor = await stage.start_worker()
    await stage.wait_for_lost_markers()
    await stage.heal()
    await stage.assert_repaired(successor, "abort")


@pytest.mark.parametrize("verdict", ["commit", "abort"])
async def test_tool_repairs_what_its_last_run_left(unique_name: UniqueName, tmp_path: Path, verdict: Verdict) -> None:
    """`redrive` and `rekey` ask the coordinator how the transaction ended, and print the repair."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        settings = Pipeline(cluster.bootstrap_servers, unique_name("p"), tmp_path).settings
        source, target = settings.input_topic, settings.transitions_topic
        await cluster.create_internal_topics(cluster.steady)
        await cluster.create_topic(source, [cluster.steady], {})
        await cluster.create_topic(target, [cluster.fragile], {})
        scope = Scope({target: 1}, [(target, 0)], settings.group_id, [(source, 0)])
        printed: list[str] = []

        async def run(republisher: Republisher) -> None:
            """Publish in a transaction that ends while its partition has no leader."""
            async with republisher:
                end = getattr(republisher._producer, f"{verdict}_transaction")

                async def end_without_leader() -> None:
                    await asyncio.to_thread(cluster.fragile.kill)
                    await cluster.has_no_leader(target)
                    await end()

                republisher._producer.commit_transaction = end_without_leader
                await republisher.publish([Output(b"k", b"v", topic=target, partition=0)], {(source, 0): 7})

        async with PartitionReader(settings) as reader:
            first, second = (
                Republisher(settings, reader.client, "rekey:a:b", "rekey", scope, printed.append) for _ in range(2)
            )
            with pytest.raises(RetriableError):  # no broker confirms the end
                await run(first)
            (lost,) = cluster.lost_markers()
            assert lost.partition == (target, 0)
            await asyncio.to_thread(cluster.fragile.start)
            assert printed == []
            async with second:
                pass
            (sentence,) = printed
            assert f"{target}-0 from offset 0; it had ended as {verdict}" in sentence
            _, ends = await reader.bounds(target, [0])
            async with aclosing(reader.read(target, {0: 0}, ends)) as parts:
                values = [record.value async for part in parts for record in part]
            assert values == ([b"v"] if verdict == "commit" else [])
            assert ends[0] > 1  # after the record and its marker


@pytest.mark.timeout(1_200)
async def test_killed_brokers_lose_a_marker(unique_name: UniqueName, tmp_path: Path) -> None:
    """Three replicas, two of them in sync: a configuration that operators consider safe."""
    traffic = Traffic(seed=1, start_ms=now_ms(), conversations=200, broken=0.02)
    async with Cluster(needed_jars()).running() as cluster:
        pipeline = Pipeline(
            cluster.bootstrap_servers, unique_name("p"), tmp_path,
            request_timeout_ms=3_000, commit_records_max=10,
        )  # fmt: skip
        try:
            await pipeline.create(NODES)
            worker = await pipeline.start_worker("tests.live.witness", bootstrap_servers=cluster.front)
            for number in range(ROUNDS):
                await pipeline.write_traffic(traffic, ROUND_COUNT, skip=number * ROUND_COUNT)
                await cluster.transaction_is_ending(WITHIN_S)
                await asyncio.sleep(number % 4 * DECIDING_S)
                await cluster.kill()
                await cluster.start()
                if worker.exit_code == UNAVAILABLE:
                    worker = await pipeline.start_worker("tests.live.witness", bootstrap_servers=cluster.front)
                await catch_up(pipeline, worker, 2 * WITHIN_S)
                lost = cluster.lost_markers()
                print(f"round {number + 1}: {len(lost)} markers lost")
                if lost:
                    break
            else:
                pytest.fail(f"no broker lost a marker in {ROUNDS} rounds: the test proves nothing")
            assert await worker.end(signal.SIGTERM, WITHIN_S) == 0, worker.text()[-3_000:]
            await pipeline.judge()
        finally:
            await pipeline.close()
