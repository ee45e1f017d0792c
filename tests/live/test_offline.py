"""Partitions without a leader, as a worker counts them."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer.preflight.topic_checks import plans
from consumer.telemetry.labels import TOPICS
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline
from tests.live.placed_cluster import PlacedCluster
from tests.live.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(240)

WITHIN_S = 60.0


async def offline(worker: WorkerProcess) -> dict[str, float]:
    """The worker's gauge, by topic."""
    return {
        sample.labels["topic"]: sample.value
        for family in text_string_to_metric_families(await worker.exposition())
        for sample in family.samples
        if sample.name == "conversation_offline_partitions"
    }


async def until(worker: WorkerProcess, expected: dict[str, float]) -> None:
    """Wait until the gauge has these values."""
    found: dict[str, float] = {}
    try:
        async with asyncio.timeout(WITHIN_S):
            while found != expected:
                found = await offline(worker)
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"it stays {found}: {worker.text()}")


async def test_partitions_without_a_leader_are_counted(unique_name: UniqueName, tmp_path: Path) -> None:
    """A killed broker led two partitions of the transitions and one of the state; the count ends when it is back."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        pipeline = Pipeline(cluster.bootstrap_servers, unique_name("p"), tmp_path)
        await cluster.create_internal_topics(cluster.steady)
        on_fragile = {pipeline.settings.transitions_topic: {1, 3}, pipeline.settings.state_topic: {2}}
        for plan in plans(pipeline.settings):
            there = on_fragile.get(plan.name, set())
            nodes = [cluster.fragile if number in there else cluster.steady for number in range(PARTITIONS)]
            await cluster.create_topic(plan.name, nodes, plan.configs)
        try:
            worker = await pipeline.start_worker()
            await worker.logged("lane.opened")
            none = dict.fromkeys(TOPICS, 0.0)
            assert await offline(worker) == none
            await asyncio.to_thread(cluster.fragile.kill)
            await until(worker, none | {"transitions": 2.0, "state": 1.0})
            await asyncio.to_thread(cluster.fragile.start)
            await until(worker, none)
        finally:
            await pipeline.close()
