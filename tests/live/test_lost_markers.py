"""Brokers that lose transaction markers (KAFKA-20734), made to do so, and workers that end what the brokers left open.

Two brokers: the steady one coordinates the transactions; the fragile one leads what is to lose its marker. A worker
stops itself right before it ends a transaction, the fragile broker is killed, and the transaction ends without it.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from consumer.adapters.kafka.republisher import Republisher, Scope
from consumer.adapters.kafka.topic_checks import plans
from consumer.adapters.kafka.topic_reader import TopicReader
from consumer.runtime.ports import Unreachable
from consumer.runtime.republish import NO_TIMESTAMP, Copy
from consumer.simulator.traffic import Draft, Traffic
from tests.live.cluster import NODES, Cluster
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms
from tests.live.placed_cluster import CONSUMER_OFFSETS, PlacedCluster
from tests.live.stream import of_partition, write

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

Verdict = Literal["commit", "abort"]

PARTITION = 0
COMMIT_RECORDS = 20
COUNT = 10 * COMMIT_RECORDS
WITHIN_S = 180.0
MOMENT_S = 1.0

ROUNDS = 12
"""In which all brokers are killed as a transaction ends, until a marker is lost: most rounds lose some."""
DECIDING_S = 0.005
"""A part of the time that the end of a transaction takes to get to the partitions."""
ROUND_COUNT = 3_000
UNAVAILABLE = 69


class Stage(Struct):
    """A pipeline that loses the markers of some topics when its fragile broker is killed."""

    cluster: PlacedCluster
    pipeline: Pipeline
    lost: frozenset[str]
    """The names of the topics on the fragile broker."""
    drafts: Iterator[Draft]

    @property
    def transactional_id(self) -> str:
        """The lane's."""
        settings = self.pipeline.settings
        return f"{settings.group_id}:{settings.input_topic}:{PARTITION}"

    async def feed(self, count: int) -> None:
        """Write to the one partition that has any records, so that one lane alone has transactions."""
        await write(self.pipeline.settings, islice(self.drafts, count))

    async def start_worker(self, *fates: str) -> WorkerProcess:
        return await self.pipeline.start_worker(
            *(("tests.live.crashing", *fates) if fates else ("tests.live.witness",))
        )

    async def stop_before_end(self, *fates: str) -> WorkerProcess:
        """A worker that has stopped itself right before it ends its second transaction; the fragile broker is dead."""
        await self.feed(COUNT)
        worker = await self.start_worker("paused", "before-commit_transaction", "2", *fates)
        await until(worker.is_stopped)
        await asyncio.to_thread(self.cluster.fragile.kill)
        for topic in self.lost:
            await self.cluster.has_no_leader(topic)
        assert self.cluster.lost_markers() == []
        return worker

    async def abort(self) -> None:
        """Fence the lane's owner, as a worker does when it opens; that aborts the transaction under way."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.cluster.bootstrap_servers, transactional_id=self.transactional_id
        )
        async with asyncio.timeout(WITHIN_S), producer:
            pass

    async def markers_are_lost(self) -> None:
        """Wait for the broker's log to tell which markers it skipped, which have to be the intended ones."""
        await until(lambda: len(self.cluster.lost_markers()) >= len(self.lost))
        lost = self.cluster.lost_markers()
        assert {marker.transactional_id for marker in lost} == {self.transactional_id}
        assert {marker.partition.topic for marker in lost} == self.lost

    async def heal(self) -> None:
        """Start the fragile broker again, and write more."""
        await asyncio.to_thread(self.cluster.fragile.start)
        await self.feed(COUNT)

    async def is_repaired(self, worker: WorkerProcess, verdict: Verdict) -> None:
        """All is committed, it is what the model says, and the worker tells that it repaired the transaction."""
        await caught_up(self.pipeline, worker, WITHIN_S)
        repaired_total = await repaired(worker, verdict)
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
    """Its parameter names the topics to lose markers of: fields of the settings, or the brokers' own topic."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        # The name of a member that is killed is taken over at once: nothing waits for the end of its session.
        pipeline = Pipeline(
            cluster.bootstrap_servers, unique_name("p"), tmp_path,
            group_instance_id="worker", session_timeout_ms=45_000, transaction_timeout_ms=40_000, commit_timeout_s=20.0,
            rebalance_timeout_ms=30_000, commit_records_max=COMMIT_RECORDS, fetch_records_max=COMMIT_RECORDS,
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


async def caught_up(pipeline: Pipeline, worker: WorkerProcess, within_s: float) -> None:
    """Wait until all is committed; otherwise the test fails with the end of the worker's log."""
    try:
        await pipeline.caught_up(within_s)
    except TimeoutError:
        pytest.fail(f"not all is committed within {within_s:g} s: {worker.text()[-3_000:]}")


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    async with asyncio.timeout(WITHIN_S):
        while not happened():
            await asyncio.sleep(0.05)


async def repaired(worker: WorkerProcess, verdict: Verdict) -> float:
    """How many transactions a worker says it has repaired with a verdict."""
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
    """The worker dies after a commit that lost markers, and amid its next transaction if it began one: the abort of
    that would be the end of the hanging records as well."""
    worker = await stage.stop_before_end()
    worker.send(signal.SIGCONT)
    await stage.markers_are_lost()
    await asyncio.sleep(MOMENT_S)
    await worker.end(signal.SIGKILL, WITHIN_S)
    await stage.heal()
    await stage.is_repaired(await stage.start_worker(), "commit")


@pytest.mark.parametrize("stage", [TRANSITIONS, STATE], indirect=True)
async def test_owner_commits_what_lost_its_marker_and_goes_on(stage: Stage) -> None:
    """The worker lives on, and has to abort its next transaction: hanging records would end with that."""
    worker = await stage.stop_before_end("denied", "after-send_offsets_to_transaction", "3")
    worker.send(signal.SIGCONT)
    await stage.markers_are_lost()
    await stage.heal()
    await stage.is_repaired(worker, "commit")


@pytest.mark.parametrize("stage", [STATE], indirect=True)
async def test_successor_aborts_what_lost_its_marker(stage: Stage) -> None:
    """The worker dies amid a transaction, another owner aborts that and dies as well; then the hanging records must not
    be committed by the next transaction."""
    worker = await stage.stop_before_end()
    await worker.end(signal.SIGKILL, WITHIN_S)
    await stage.abort()
    await stage.markers_are_lost()
    await stage.heal()
    await stage.is_repaired(await stage.start_worker(), "abort")


@pytest.mark.parametrize("stage", [TRANSITIONS], indirect=True)
async def test_owner_aborts_what_loses_its_marker_as_it_opens(stage: Stage) -> None:
    """The marker is lost by the InitProducerId of the worker that has to repair it."""
    worker = await stage.stop_before_end()
    await worker.end(signal.SIGKILL, WITHIN_S)
    successor = await stage.start_worker()
    await stage.markers_are_lost()
    await stage.heal()
    await stage.is_repaired(successor, "abort")


@pytest.mark.parametrize("verdict", ["commit", "abort"])
async def test_tool_repairs_what_its_last_run_left(unique_name: UniqueName, tmp_path: Path, verdict: Verdict) -> None:
    """`redrive` and `rekey` learn from the coordinator how the transaction ended, and tell what they repaired."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        settings = Pipeline(cluster.bootstrap_servers, unique_name("p"), tmp_path).settings
        source, target = settings.input_topic, settings.transitions_topic
        await cluster.create_internal_topics(cluster.steady)
        await cluster.create_topic(source, [cluster.steady], {})
        await cluster.create_topic(target, [cluster.fragile], {})
        scope = Scope({target: 1}, [TopicPartition(target, 0)], settings.group_id, [TopicPartition(source, 0)])
        said: list[str] = []

        async def run(republisher: Republisher) -> None:
            """Publish in a transaction whose end meets no leader."""
            async with republisher:
                end = getattr(republisher._producer, f"{verdict}_transaction")

                async def end_without_leader() -> None:
                    await asyncio.to_thread(cluster.fragile.kill)
                    await cluster.has_no_leader(target)
                    await end()

                republisher._producer.commit_transaction = end_without_leader
                await republisher.publish(
                    [Copy(target, 0, b"k", b"v", NO_TIMESTAMP, ())], {TopicPartition(source, 0): 7}
                )

        async with TopicReader(settings) as reader:
            first, second = (
                Republisher(settings, reader.client, "rekey:a:b", "rekey", scope, said.append) for _ in range(2)
            )
            with pytest.raises(Unreachable):  # nothing confirms what it has done
                await run(first)
            (lost,) = cluster.lost_markers()
            assert lost.partition == (target, 0)
            await asyncio.to_thread(cluster.fragile.start)
            assert said == []
            async with second:
                pass
            (sentence,) = said
            assert f"{target}-0 from offset 0; it had ended as {verdict}" in sentence
            _, ends = await reader.bounds(target, [0])
            async with aclosing(reader.read(target, {0: 0}, ends)) as parts:
                found = [record.value async for part in parts for record in part]
            assert found == ([b"v"] if verdict == "commit" else [])
            assert ends[0] > 1  # the record and a marker


@pytest.mark.timeout(1_200)
async def test_brokers_killed_until_they_lose_a_marker(unique_name: UniqueName, tmp_path: Path) -> None:
    """Three replicas, of which two have to be in sync: what an operator takes for safe."""
    traffic = Traffic(seed=1, start_ms=now_ms(), conversations=200, broken=0.02)
    async with Cluster(needed_jars()).running() as cluster:
        pipeline = Pipeline(
            cluster.bootstrap_servers, unique_name("p"), tmp_path,
            request_timeout_ms=3_000, commit_records_max=10, fetch_records_max=10,
        )  # fmt: skip
        try:
            await pipeline.create(NODES)
            worker = await pipeline.start_worker("tests.live.witness", bootstrap_servers=cluster.front)
            for number in range(ROUNDS):
                await pipeline.feed(traffic, ROUND_COUNT, skip=number * ROUND_COUNT)
                await cluster.transaction_is_ending(WITHIN_S)
                await asyncio.sleep(number % 4 * DECIDING_S)
                await cluster.kill()
                await cluster.start()
                if worker.exit_code == UNAVAILABLE:
                    worker = await pipeline.start_worker("tests.live.witness", bootstrap_servers=cluster.front)
                await caught_up(pipeline, worker, 2 * WITHIN_S)
                lost = cluster.lost_markers()
                print(f"round {number + 1}: {len(lost)} markers lost")
                if lost:
                    break
            else:
                pytest.fail(f"no broker lost a marker in {ROUNDS} rounds: the test has shown nothing")
            assert await worker.end(signal.SIGTERM, WITHIN_S) == 0, worker.text()[-3_000:]
            await pipeline.judge()
        finally:
            await pipeline.close()
