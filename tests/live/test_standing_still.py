"""Whatever keeps a partition from moving while its log grows is seen, alone, and is over when its cause is.

The fragile broker leads one partition of the input and nothing else; the worker reaches both brokers through proxies.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from consumer.adapters.kafka.topic_checks import plans
from consumer.simulator.traffic import Draft, Traffic, records
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms
from tests.live.placed_cluster import PlacedCluster
from tests.live.stream import write

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

FRAGILE = 1
"""The partition that the fragile broker leads."""
SEEN_S = 30.0
"""Within this time a standstill is seen: the contract's."""
HEALED_S = 120.0


class Stage(Struct):
    """A pipeline on two brokers."""

    cluster: PlacedCluster
    pipeline: Pipeline
    drafts: Iterator[Draft]

    async def start_worker(self) -> WorkerProcess:
        front = f"127.0.0.1:{self.cluster.steady.front_port}"
        return await self.pipeline.start_worker(bootstrap_servers=front)

    async def feed(self, count: int = 200) -> None:
        await write(self.pipeline.settings, islice(self.drafts, count))

    async def others_go_on(self) -> None:
        """Write more, and wait until it is committed in all partitions but the fragile one."""
        await self.feed()
        ends = await self.pipeline.ends(self.pipeline.settings.input_topic)
        await self.pipeline.committed_up_to(ends | {TopicPartition(self.pipeline.settings.input_topic, FRAGILE): 0})


@pytest.fixture
async def stage(unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Stage]:
    async with PlacedCluster(needed_jars()).running() as cluster:
        pipeline = Pipeline(cluster.bootstrap_servers, unique_name("p"), tmp_path)
        await cluster.create_internal_topics(cluster.steady)
        for plan in plans(pipeline.settings):
            nodes = [cluster.steady] * PARTITIONS
            if plan.name == pipeline.settings.input_topic:
                nodes[FRAGILE] = cluster.fragile
            await cluster.create_topic(plan.name, nodes, plan.configs)
        try:
            yield Stage(cluster, pipeline, records(Traffic(seed=1, start_ms=now_ms(), conversations=100)))
        finally:
            await pipeline.close()


async def of_partition(worker: WorkerProcess, name: str, partition: int) -> float:
    """A gauge of one partition; 0 as long as there is none."""
    families = text_string_to_metric_families(await worker.exposition())
    samples = (sample for family in families for sample in family.samples)
    found = [
        sample.value for sample in samples if (sample.name, sample.labels) == (name, {"partition": str(partition)})
    ]
    return sum(found)


async def is_seen(worker: WorkerProcess, partition: int, cause: str, said: str) -> float:
    """Wait until all signals tell of a standstill; returns how long that took."""
    began_s = time.monotonic()
    async with asyncio.timeout(HEALED_S):
        while not worker.events("lane.stands_still"):
            assert worker.exit_code is None, worker.text()[-3_000:]
            await asyncio.sleep(0.2)
        while not await of_partition(worker, "conversation_standstill_seconds", partition):
            await asyncio.sleep(0.2)
    taken_s = time.monotonic() - began_s
    ((event_partition, event_cause, found),) = {
        (event["partition"], event["cause"], event["found"]) for event in worker.events("lane.stands_still")
    }
    assert (event_partition, event_cause) == (partition, cause)
    assert said in found
    status, body = await worker.readiness()
    assert status == 503
    assert f"partition {partition}: {found}" in body["standstill"]
    assert await of_partition(worker, "conversation_lag_seconds", partition) > 0
    return taken_s


async def is_over(stage: Stage, worker: WorkerProcess, partition: int) -> None:
    """Wait until everything is committed and no signal tells of a standstill any more."""
    await stage.pipeline.caught_up(HEALED_S)
    async with asyncio.timeout(HEALED_S):
        while (await worker.readiness())[0] != 200:
            await asyncio.sleep(0.2)
    for name in ("standstill_seconds", "lag_seconds", "lag_records", "undecided_records"):
        assert await of_partition(worker, f"conversation_{name}", partition) == 0, name
    assert len(worker.events("lane.stands_still")) == len(worker.events("lane.moves_again"))


@pytest.mark.parametrize("way", ["refuses", "hangs"])
async def test_one_broker_out_of_reach(stage: Stage, way: str) -> None:
    """Its partition stands still, and the others go on, also after a restart."""
    proxy = stage.cluster.proxies[FRAGILE]
    address = f"broker 2 at 127.0.0.1:{proxy.port} leads the partition and cannot be reached or does not answer"
    close: Callable[[], None] = {"refuses": proxy.refuse, "hangs": proxy.hang}[way]
    worker = await stage.start_worker()
    await stage.feed()
    await stage.pipeline.caught_up()
    close()
    assert await is_seen(worker, FRAGILE, "leader", address) < SEEN_S
    await stage.others_go_on()
    assert await worker.end(signal.SIGTERM) == 0
    successor = await stage.start_worker()
    await stage.others_go_on()
    await is_seen(successor, FRAGILE, "leader", address)
    assert {event["partition"] for event in successor.events("lane.failed")} <= {FRAGILE}
    await proxy.heal()
    await is_over(stage, successor, FRAGILE)
    await stage.pipeline.judge()
