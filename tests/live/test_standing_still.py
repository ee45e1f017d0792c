"""Whatever keeps a partition from moving while its log grows is seen, alone, and is over when its cause is.

The fragile broker leads one partition of one topic and nothing else; the worker reaches both brokers through proxies.
"""

import asyncio
import contextlib
import html
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from consumer.adapters.kafka.topic_checks import plans
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from tests.live.broker import LocalBroker
from tests.live.commands import WAIT_S, ended, environ_of, environment
from tests.live.conftest import CreateTopics, UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms
from tests.live.placed_cluster import PlacedCluster
from tests.live.stream import damaged, of_partition, write

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

FRAGILE = 1
"""The partition that the fragile broker leads."""
SEEN_S = 120.0
"""Within this time a standstill is seen: four times the contract's, for busy machines; what it took is printed."""
HEALED_S = 120.0
READINESS_S = {"killed": 40.0, "paused": SEEN_S}
"""Of which the contract has ten seconds and thirty: a broker that hangs keeps its connections."""
OUTAGE_S = {"killed": 60.0, "paused": 30.0}
LINES_MAX = 30
"""In such an outage."""


class Stage(Struct):
    """A pipeline on two brokers, of which the fragile one leads one partition of one topic."""

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
async def stage(request: pytest.FixtureRequest, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Stage]:
    """Its parameter is the setting that names the topic, the input's without one."""
    async with PlacedCluster(needed_jars()).running() as cluster:
        pipeline = Pipeline(cluster.bootstrap_servers, unique_name("p"), tmp_path)
        await cluster.create_internal_topics(cluster.steady)
        for plan in plans(pipeline.settings):
            nodes = [cluster.steady] * PARTITIONS
            if plan.name == getattr(pipeline.settings, getattr(request, "param", "input_topic")):
                nodes[FRAGILE] = cluster.fragile
            await cluster.create_topic(plan.name, nodes, plan.configs)
        try:
            yield Stage(cluster, pipeline, records(Traffic(seed=1, start_ms=now_ms(), conversations=100)))
        finally:
            await pipeline.close()


async def gauge(worker: WorkerProcess, name: str, partition: int) -> float:
    """A gauge of one partition; 0 as long as there is none."""
    families = text_string_to_metric_families(await worker.exposition())
    samples = (sample for family in families for sample in family.samples)
    found = [
        sample.value for sample in samples if (sample.name, sample.labels) == (name, {"partition": str(partition)})
    ]
    return sum(found)


async def is_seen(worker: WorkerProcess, partition: int, cause: str, said: str) -> float:
    """Wait until all signals show a standstill; returns how many seconds that took."""
    began_s = time.monotonic()
    async with asyncio.timeout(HEALED_S):
        while not worker.events("lane.stands_still"):
            assert worker.exit_code is None, worker.text()[-3_000:]
            await asyncio.sleep(0.2)
        while not await gauge(worker, "conversation_standstill_seconds", partition):
            await asyncio.sleep(0.2)
    taken_s = time.monotonic() - began_s
    print(f"{cause} seen after {taken_s:.1f} s: {said}")
    ((event_partition, event_cause, found),) = {
        (event["partition"], event["cause"], event["found"]) for event in worker.events("lane.stands_still")
    }
    assert (event_partition, event_cause) == (partition, cause)
    assert said in found
    status, body = await worker.readiness()
    assert status == 503
    assert f"partition {partition}: {found}" in body["standstill"]
    assert found in html.unescape(await worker.page())
    assert await gauge(worker, "conversation_lag_seconds", partition) > 0
    return taken_s


async def is_over(pipeline: Pipeline, worker: WorkerProcess, partition: int) -> None:
    """Wait until everything is committed and no signal shows a standstill any more."""
    await pipeline.caught_up(HEALED_S)
    async with asyncio.timeout(HEALED_S):
        while (await worker.readiness())[0] != 200:
            await asyncio.sleep(0.2)
    names = ("standstill_seconds", "lag_seconds", "lag_records", "undecided_records")
    async with asyncio.timeout(HEALED_S):
        while any([await gauge(worker, f"conversation_{name}", partition) for name in names]):
            await asyncio.sleep(0.2)
    assert len(worker.events("lane.stands_still")) == len(worker.events("lane.moves_again"))


@pytest.mark.parametrize("way", ["refuses", "hangs"])
async def test_unreachable_leader(stage: Stage, way: str) -> None:
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
    await is_over(stage.pipeline, successor, FRAGILE)
    await stage.pipeline.judge()


async def test_partition_without_a_leader(stage: Stage) -> None:
    """Its only replica is down: the broker that led it is gone, and the rest of the cluster knows."""
    worker = await stage.start_worker()
    await stage.feed()
    await stage.pipeline.caught_up()
    await asyncio.to_thread(stage.cluster.fragile.kill)
    assert await is_seen(worker, FRAGILE, "leader", "no broker leads the partition") < SEEN_S
    checked = await ended("check", environ_of(stage.pipeline.settings))
    assert checked.exit_code == 0, checked.printed  # `run` starts, and serves the others
    assert "warn  leaders" in checked.printed
    assert f"partition {FRAGILE}: no broker leads the partition" in checked.printed
    await asyncio.to_thread(stage.cluster.fragile.start)
    await stage.feed()
    await is_over(stage.pipeline, worker, FRAGILE)
    await stage.pipeline.judge()


@pytest.mark.parametrize("stage", ["state_topic", "transitions_topic"], indirect=True)
async def test_output_without_a_leader(stage: Stage) -> None:
    """The lane can read and not commit, for longer than it may retry; the other lanes keep the worker."""
    stage.pipeline.change(retry_s_max=10.0)
    worker = await stage.start_worker()
    await stage.feed()
    await stage.pipeline.caught_up()
    await asyncio.to_thread(stage.cluster.fragile.kill)
    await stage.feed()
    assert await is_seen(worker, FRAGILE, "unread", "records wait and none is read: ") < SEEN_S
    await stage.others_go_on()
    await asyncio.sleep(2 * stage.pipeline.settings.retry_s_max)
    assert worker.exit_code is None
    await asyncio.to_thread(stage.cluster.fragile.start)
    await is_over(stage.pipeline, worker, FRAGILE)
    await stage.pipeline.judge()


async def test_open_breaker(pipeline: Pipeline) -> None:
    """The reason of the breaker is that of the standstill; a restart without the cause goes on."""
    pipeline.change(dead_letters_consecutive_max=20)
    worker = await pipeline.start_worker()
    await write(pipeline.settings, damaged(60))
    assert await is_seen(worker, 0, "unread", "CC_DEAD_LETTERS_CONSECUTIVE_MAX") < SEEN_S
    assert await worker.end(signal.SIGTERM) == 0
    pipeline.change(dead_letters_consecutive_max=10_000)
    await is_over(pipeline, await pipeline.start_worker(), 0)


async def test_partition_that_is_taken_over_again_and_again(pipeline: Pipeline) -> None:
    """Another service with the same transactional id fences the lane each time that it has opened."""
    settings, partition = pipeline.settings, 0
    worker = await pipeline.start_worker()
    drafts = of_partition(partition, Traffic(seed=1, start_ms=now_ms(), conversations=20))

    async def take_over() -> None:
        while True:
            async with AIOKafkaProducer(
                bootstrap_servers=settings.bootstrap_servers,
                transactional_id=f"{settings.group_id}:{settings.input_topic}:{partition}",
            ):
                await asyncio.sleep(0.02)  # less than the lane needs to open and commit

    rival = asyncio.create_task(take_over())
    try:
        await worker.logged("lane.opened")
        await write(settings, islice(drafts, 20))
        assert await is_seen(worker, partition, "unread", "another worker took the partition over") < SEEN_S
    finally:
        rival.cancel()
        await asyncio.gather(rival, return_exceptions=True)
    await is_over(pipeline, worker, partition)
    await pipeline.judge()


async def test_open_transaction_in_the_input(pipeline: Pipeline) -> None:
    """What follows it waits, which the tools say as well; when it has ended, all is read and its records are not."""
    settings, partition = pipeline.settings, 0
    drafts = of_partition(partition, Traffic(seed=1, start_ms=now_ms(), conversations=20))
    await write(settings, islice(drafts, 20))
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    conversation_id = next(iter(await pipeline.states()))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id, transaction_timeout_ms=600_000
    )
    async with producer:
        await producer.begin_transaction()
        undecided = next(drafts)
        await producer.send_and_wait(settings.input_topic, undecided.value, undecided.key, partition)
        await write(settings, islice(drafts, 3))
        assert await is_seen(worker, partition, "open_transaction", "4 records wait for the end") < SEEN_S
        for name in ("lag_records", "undecided_records"):
            assert await gauge(worker, f"conversation_{name}", partition) == 4
        assert await gauge(worker, "conversation_undecided_seconds", partition) > 0
        (event,) = worker.events("lane.stands_still")
        abort = f"--topic {settings.input_topic} --partition {partition} --start-offset 20`"
        assert abort in event["todo"]
        environ = environ_of(settings)
        for command, exit_code in (("check", 0), ("verify", 0), (f"inspect {conversation_id} --why", 0)):
            shown = await ended(command, environ)
            assert shown.exit_code == exit_code, shown.printed
            assert "4 offsets from 20 on wait for the end of a transaction, whose newest record is" in shown.printed
            assert abort in shown.printed
        await producer.abort_transaction()
    await is_over(pipeline, worker, partition)
    judged = await pipeline.judge()
    assert judged.records == 23
    # The position behind the marker is committed as well.
    async with asyncio.timeout(HEALED_S):
        while (await pipeline.committed())[TopicPartition(settings.input_topic, partition)].offset < 25:
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("way", ["killed", "paused"])
async def test_all_brokers_gone(unique_name: UniqueName, tmp_path: Path, way: str) -> None:
    """Readiness follows within ten seconds, also of a worker without traffic, and the log stays readable."""
    broker = LocalBroker(needed_jars())
    await asyncio.to_thread(broker.start)
    pipeline = Pipeline(broker.bootstrap_servers, unique_name("p"), tmp_path)
    try:
        await pipeline.create()
        worker = await pipeline.start_worker()
        await pipeline.feed(Traffic(seed=1, start_ms=now_ms(), conversations=20), 100)
        await pipeline.caught_up()
        assert await worker.ready() == 200
        lines = len(worker.text().splitlines())
        (broker.kill if way == "killed" else broker.pause)()
        gone_s = time.monotonic()
        async with asyncio.timeout(HEALED_S):
            while (await worker.readiness())[0] == 200:
                await asyncio.sleep(0.2)
        noticed_s = time.monotonic() - gone_s
        print(f"all brokers {way}: not ready after {noticed_s:.1f} s")
        assert noticed_s < READINESS_S[way]
        await asyncio.sleep(max(0.0, OUTAGE_S[way] - noticed_s))
        logged = worker.text().splitlines()[lines:]
        assert len(logged) <= LINES_MAX, "\n".join(logged)
        status, body = await worker.readiness()
        assert (status, broker.bootstrap_servers in body["connection"] + body["standstill"]) == (503, True)
        await asyncio.to_thread(broker.start if way == "killed" else broker.resume)
        async with asyncio.timeout(HEALED_S):
            while await worker.ready() != 200:
                await asyncio.sleep(0.2)
        assert await worker.end(signal.SIGTERM) == 0
        for complaint in ("Unclosed", "was destroyed", "never retrieved", "loop.exception"):
            assert complaint not in worker.text()
    finally:
        await pipeline.close()
        broker.close()


async def test_markers_that_retention_deletes_are_no_loss(pipeline: Pipeline) -> None:
    """A partition that ends in the marker of a transaction, as after `rekey`, and is empty at the next start."""
    settings = pipeline.settings
    tp = TopicPartition(settings.input_topic, 0)
    drafts = of_partition(0, Traffic(seed=1, start_ms=now_ms(), conversations=20))
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id)
    async with producer, producer.transaction():
        for draft in islice(drafts, 5):
            await producer.send_and_wait(settings.input_topic, draft.value, draft.key, 0)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert (await pipeline.committed())[tp].offset == 6
    assert await worker.end(signal.SIGTERM) == 0
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before_offset=6)})
    finally:
        await admin.close()
    successor = await pipeline.start_worker()
    await write(settings, islice(drafts, 5))
    await pipeline.caught_up()
    assert pipeline.events("lane.offset_reset") == []
    assert (await successor.metrics())["conversation_offset_resets_total"] == 0


@pytest.mark.parametrize("is_suspended", [True, False])
async def test_recreated_input(pipeline: Pipeline, create_topics: CreateTopics, *, is_suspended: bool) -> None:
    """It is filled past the committed offsets before the worker can notice. Brokers delete these with the topic, so an
    operator has to say that it is to be read; then all of it is."""
    settings = pipeline.settings
    worker = await pipeline.start_worker()
    await pipeline.feed(Traffic(seed=1, start_ms=now_ms(), conversations=20, broken=0), 40)
    await pipeline.caught_up()
    if is_suspended:
        worker.send(signal.SIGSTOP)
    else:
        assert await worker.end(signal.SIGTERM) == 0
    await recreate(settings, create_topics)
    await pipeline.feed(Traffic(seed=2, start_ms=now_ms(), conversations=60, broken=0), 400)
    if is_suspended:
        worker.send(signal.SIGCONT)
    else:
        worker = await pipeline.start_worker()
    async with asyncio.timeout(HEALED_S):
        while not any("no committed offset" in event["error"] for event in worker.events("lane.failed")):
            await asyncio.sleep(0.2)
    assert await worker.end(signal.SIGTERM) == 0
    await pipeline.reset_offsets()
    await pipeline.start_worker()
    await pipeline.caught_up()
    written = {record.key.decode() for record in await pipeline.read(settings.input_topic) if record.key is not None}
    assert written <= (await pipeline.states()).keys()


async def recreate(settings: Settings, create_topics: CreateTopics) -> None:
    """Delete the input topic and create another one of its name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([settings.input_topic])
    finally:
        await admin.close()
    async with asyncio.timeout(HEALED_S):
        while True:
            with contextlib.suppress(AssertionError):  # the broker is not done with the deletion
                await create_topics(settings.bootstrap_servers, {settings.input_topic: (PARTITIONS, {})})
                return
            await asyncio.sleep(0.5)


async def test_too_few_descriptors_are_told_at_the_start(pipeline: Pipeline) -> None:
    """Four partitions on one broker need 212."""
    for command, expected in (("run", "lane.opened"), ("check", "warn  descriptors")):
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"ulimit -n 210 && exec {sys.executable} -m consumer {command}",
            env=environment(environ_of(pipeline.settings) | {"CC_ADMIN_PORT": "0", "CC_QUERY_PORT": "0"}),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        printed = ""
        async with asyncio.timeout(WAIT_S):
            while expected not in printed:
                line = await process.stdout.readline()
                assert line, printed
                printed += line.decode()
        if command == "run":
            process.send_signal(signal.SIGTERM)
        printed += (await asyncio.wait_for(process.communicate(), WAIT_S))[0].decode()
        assert process.returncode == 0, printed
        assert "all 4 partitions needs 212 file descriptors and may have 210" in printed
        assert "at most 3 partitions" in printed
