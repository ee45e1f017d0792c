"""The main job on a real Kafka, by real processes: the committed outputs equal the model."""

import asyncio
import random
import signal
from itertools import islice

import pytest
from aiokafka import AIOKafkaProducer

from consumer.simulator.traffic import Traffic, records
from tests.live.commands import WAIT_S
from tests.live.harness import Pipeline, now_ms

COUNT = 20_000
START_MS = now_ms()


def traffic(seed: int = 1) -> Traffic:
    """All tests write the same records, so that the model runs once."""
    return Traffic(seed=seed, start_ms=START_MS, disorder=0.2, duplicates=0.1, broken=0.01, conversations=300)


async def test_outputs_equal_the_model(pipeline: Pipeline) -> None:
    """Every record is counted, and all damaged ones are dead letters."""
    await pipeline.write_traffic(traffic(), COUNT)
    worker = await pipeline.start_worker("tests.live.witness")
    await pipeline.caught_up()
    assert await worker.counted(COUNT) == COUNT
    assert await worker.end(signal.SIGTERM) == 0
    judged = await pipeline.judge()
    assert judged.records == COUNT
    assert judged.dead > COUNT // 200


async def test_exactly_once_when_killed_three_times(pipeline: Pipeline) -> None:
    """One worker is killed within a commit, two at random moments."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    await pipeline.write_traffic(traffic(), COUNT)
    doomed = await pipeline.start_worker("tests.live.crashing", "killed", "before-send_offsets_to_transaction", "2")
    assert await doomed.ended() == -signal.SIGKILL, doomed.text()  # its last transaction stays open
    for _ in range(2):
        worker = await pipeline.start_worker("tests.live.witness")
        await worker.logged("lane.opened")
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        await worker.end(signal.SIGKILL)
    worker = await pipeline.start_worker("tests.live.witness")
    await worker.logged("lane.opened")  # its predecessors may have left nothing to do
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == COUNT


async def test_worker_joins_and_another_leaves_mid_stream(pipeline: Pipeline) -> None:
    first = await pipeline.start_worker("tests.live.witness")
    writing = asyncio.create_task(pipeline.write_traffic(traffic(), COUNT // 2))
    await first.logged("witness.committed")
    second = await pipeline.start_worker("tests.live.witness")
    await second.logged("lane.opened")
    await writing
    writing = asyncio.create_task(pipeline.write_traffic(traffic(), COUNT // 2, skip=COUNT // 2))
    await second.logged("witness.committed")
    assert await first.end(signal.SIGTERM) == 0
    await writing
    await pipeline.caught_up()
    assert await second.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == COUNT


async def test_paused_worker_is_fenced_and_rejoins(pipeline: Pipeline) -> None:
    zombie = await pipeline.start_worker("tests.live.witness")
    writing = asyncio.create_task(pipeline.write_traffic(traffic(), COUNT))
    await zombie.logged("witness.committed")
    zombie.send(signal.SIGSTOP)
    try:
        successor = await pipeline.start_worker("tests.live.witness")
        await writing
        await pipeline.caught_up()
    finally:
        zombie.send(signal.SIGCONT)
    await pipeline.write_traffic(traffic(2), 2_000)
    await pipeline.caught_up()
    async with asyncio.timeout(WAIT_S):
        while len(zombie.events("group.assigned")) < 2:
            await asyncio.sleep(0.1)
    assert await zombie.end(signal.SIGTERM) == 0
    assert await successor.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == COUNT + 2_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_sigterm_under_load_drains_and_commits(pipeline: Pipeline, number: signal.Signals) -> None:
    # Small commits, so that much is left to do after the first one.
    pipeline.change(drain_s=40.0, session_timeout_ms=45_000, commit_records_max=500)
    await pipeline.write_traffic(traffic(), COUNT)
    worker = await pipeline.start_worker("tests.live.witness")
    await worker.logged("witness.committed")
    assert await worker.end(number, pipeline.settings.drain_s) == 0
    assert worker.events("consumer.drained")[0]["in_time"]
    left = await pipeline.settled_lag()
    assert 0 < left < COUNT
    worker = await pipeline.start_worker("tests.live.witness")
    await pipeline.caught_up()
    assert await worker.counted(left) == left
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == COUNT


async def test_at_least_once_repeats_effects_and_loses_none(pipeline: Pipeline) -> None:
    """With `delivery=at_least_once` the outputs of killed workers may be there twice."""
    pipeline.change(delivery="at_least_once")
    await pipeline.write_traffic(traffic(), 4_000)
    for step in ("before-send_batch", "after-send_batch"):
        doomed = await pipeline.start_worker("tests.live.crashing", "killed", step, "6")
        assert await doomed.ended() == -signal.SIGKILL, doomed.text()
    worker = await pipeline.start_worker("tests.live.witness")
    await worker.logged("lane.opened")
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    judged = await pipeline.compare()
    repeated = ("the log of transitions is out of order: stands already", "2 dead letters of", "3 dead letters of")
    assert [mismatch for mismatch in judged.mismatches if not mismatch.startswith(repeated)] == []
    assert judged.records == 4_000


async def test_aborted_records_are_not_consumed(pipeline: Pipeline) -> None:
    drafts = [draft for draft in islice(records(traffic()), 3_000) if not draft.broken]
    settings = pipeline.settings
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id)
    worker = await pipeline.start_worker("tests.live.witness")
    async with asyncio.timeout(WAIT_S), producer:
        for is_committed, part in ((False, drafts[:1_000]), (True, drafts[1_000:2_000]), (False, drafts[2_000:])):
            await producer.begin_transaction()
            for draft in part:
                await producer.send(settings.input_topic, draft.value, key=draft.key, headers=list(draft.headers))
            await (producer.commit_transaction() if is_committed else producer.abort_transaction())
    assert await worker.counted(1_000) == 1_000
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == 1_000
    assert sum(sum(event["counts"].values()) for event in worker.events("witness.committed")) == 1_000
