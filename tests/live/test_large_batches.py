"""Small batches that hold 800 MB, in a topic of a real broker with default limits: nothing grows, nothing is lost."""

import asyncio
import json
import signal

from aiokafka import TopicPartition

from consumer.cli.exit_codes import CONFIG, OK
from consumer.simulator.traffic import Traffic
from tests.kafka.batches import bomb, send
from tests.live.commands import ended, environ_of
from tests.live.harness import PARTITIONS, Pipeline, now_ms

COUNT = 1_000
BOMB_BYTES = 800_000_000
GROWTH_BYTES_MAX = 300_000_000
"""Far more than decompressing up to the default limit takes, and far less than the bomb."""


async def write(pipeline: Pipeline, topic: str, partition: int) -> None:
    content = bomb("zstd", BOMB_BYTES, key=b"bomb", time_ms=now_ms())
    await send(pipeline.settings.bootstrap_servers, topic, partition, content)


async def test_lane_stops_at_a_large_batch_and_passes_it_when_told_to(pipeline: Pipeline) -> None:
    traffic = Traffic(seed=31, start_ms=now_ms(), conversations=50)
    topic = pipeline.settings.input_topic
    await pipeline.write_traffic(traffic, COUNT)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    before, over = worker.resident_bytes(), asyncio.Event()
    measuring = asyncio.create_task(worker.measure_peak_bytes(over))
    reached = (await pipeline.ends(topic))[TopicPartition(topic, 0)]
    await write(pipeline, topic, 0)
    await pipeline.write_traffic(traffic, COUNT, skip=COUNT)
    error = str((await worker.logged("lane.batch_too_large"))["error"])
    assert f"partition 0 of {topic!r} has a batch from offset {reached} to {reached} of which" in error
    others = {tp: end for tp, end in (await pipeline.ends(topic)).items() if tp.partition}
    await pipeline.committed_up_to(others | {TopicPartition(topic, 0): reached})
    over.set()
    assert await measuring - before < GROWTH_BYTES_MAX
    assert worker.resident_bytes() - before < GROWTH_BYTES_MAX // 3
    assert not worker.events("lane.failed", "lane.fenced")
    assert await worker.end(signal.SIGTERM) == 0

    pipeline.change(oversized_batches="dead_letter")
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert (await worker.logged("lane.batch_passed_over"))["offset"] == reached
    assert await worker.end(signal.SIGTERM) == 0
    shown = await ended("dead-letters show --reason too_large --json", environ_of(pipeline.settings))
    (letter,) = [json.loads(line) for line in shown.printed.splitlines()]
    assert letter["payload"] == "not read", letter
    verified = await ended("verify", environ_of(pipeline.settings))
    assert verified.exit_code == OK, verified.printed
    pipeline.change(oversized_batches="stop")
    refused = await ended("verify", environ_of(pipeline.settings))
    assert refused.exit_code == CONFIG, refused.printed
    assert f"from offset {reached} to {reached}" in refused.printed


async def test_large_batch_among_the_states_stops_one_lane(pipeline: Pipeline) -> None:
    await pipeline.write_traffic(Traffic(seed=32, start_ms=now_ms(), conversations=50), COUNT)
    await write(pipeline, pipeline.settings.state_topic, 1)
    worker, over = await pipeline.start_worker(), asyncio.Event()
    measuring = asyncio.create_task(worker.measure_peak_bytes(over))
    line = await worker.logged("lane.batch_too_large")
    assert (line["partition"], "restoring from the state topic" in line["error"]) == (1, True)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await pipeline.committed_up_to({tp: 0 if tp.partition == 1 else end for tp, end in ends.items()})
    over.set()
    assert await measuring < GROWTH_BYTES_MAX
    assert len(worker.events("lane.opened")) == PARTITIONS - 1
    assert await worker.end(signal.SIGTERM) == 0
