"""What happens to topics behind the worker's back: it goes on where it may, else it ends and says what to do."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer.adapters.kafka_topics import TopicAdmin
from consumer.adapters.kafka_writer import KafkaWriter
from consumer.simulator.traffic import Draft, Traffic
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, now_ms

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

COUNT = 1_000
MISFIT = 78


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    made = Pipeline(kafka, unique_name("p"), tmp_path, dead_letters_consecutive_max=50)
    await made.create()
    yield made
    await made.close()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await asyncio.wait_for(client.start(), 15)
    yield client
    await client.close()


def traffic(seed: int) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), conversations=50)


async def worked_off(pipeline: Pipeline) -> None:
    """Let a worker consume everything and end."""
    worker = await pipeline.start_worker()
    await pipeline.caught_up(60)
    assert await worker.end(signal.SIGTERM, 10) == 0


async def misfit(pipeline: Pipeline) -> str:
    """What a worker says that cannot start."""
    worker = await pipeline.start_worker()
    assert await worker.ended(40) == MISFIT, worker.text()
    return str(worker.events("consumer.failed")[0]["error"])


async def test_a_state_topic_made_anew_is_refused_and_can_be_rebuilt(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    settings = pipeline.settings
    await pipeline.feed(traffic(1), COUNT)
    await worked_off(pipeline)
    before = await pipeline.judge()
    await admin.delete_topics([settings.state_topic])
    assert "(CC_STATE_TOPIC) does not exist" in await misfit(pipeline)
    async with TopicAdmin(settings) as topics:
        await topics.create(PARTITIONS, 1)
    assert "--reset-offsets" in await misfit(pipeline)
    await pipeline.reset_offsets()
    await worked_off(pipeline)
    assert await pipeline.states() == before.states


async def test_a_truncated_state_topic_is_refused(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await pipeline.feed(traffic(2), COUNT)
    await worked_off(pipeline)
    partitions = [TopicPartition(pipeline.settings.state_topic, each) for each in range(PARTITIONS)]
    for policy in ("compact,delete", "compact"):
        config = {"cleanup.policy": policy, "max.message.bytes": "1048588"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, pipeline.settings.state_topic, config)])
        if policy == "compact,delete":
            await admin.delete_records({each: RecordsToDelete(before_offset=20) for each in partitions})
    assert "were committed: it was truncated" in await misfit(pipeline)


async def test_records_that_retention_took_are_told_and_the_rest_is_consumed(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    await pipeline.feed(traffic(3), COUNT)
    await worked_off(pipeline)
    await pipeline.feed(traffic(4), COUNT)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await admin.delete_records({each: RecordsToDelete(before_offset=end - 5) for each, end in ends.items()})
    worker = await pipeline.start_worker()
    await pipeline.caught_up(60)
    assert len(worker.events("lane.offset_reset")) == PARTITIONS
    assert (await worker.metrics())["conversation_records_total"] == 5 * PARTITIONS
    assert await worker.end(signal.SIGTERM, 10) == 0


async def test_partitions_added_to_the_input_end_the_worker_with_the_remedy(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await admin.create_partitions({pipeline.settings.input_topic: NewPartitions(total_count=PARTITIONS + 2)})
    assert await worker.ended(90) == MISFIT, worker.text()
    told = str(worker.events("consumer.failed")[0]["error"])
    assert "(CC_STATE_TOPIC) has 4 partitions but" in told


async def test_a_record_larger_than_a_fetch_becomes_a_dead_letter_with_all_its_bytes(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    name = pipeline.settings.input_topic
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": "8388608"})])
    value = b"{" + random.Random(1).randbytes(6_000_000)
    async with KafkaWriter(pipeline.settings) as writer:
        await writer.write([Draft(b"k", value, now_ms(), 0, broken=True)])
        await writer.flush()
    await worked_off(pipeline)
    (letter,) = await pipeline.read(pipeline.settings.dead_letters_topic)
    assert (letter.key, letter.value) == (b"k", value)
    assert dict(letter.headers)["cc-reason"] == b"too_large"


async def test_a_state_that_the_broker_refuses_is_never_followed_by_its_offset(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    topic = pipeline.settings.state_topic

    async def allow(size: int) -> None:
        config = {"cleanup.policy": "compact", "max.message.bytes": str(size)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])

    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await allow(100)
    await pipeline.feed(traffic(6), COUNT)
    assert await worker.ended(40) == MISFIT
    assert "max.message.bytes" in str(worker.events("consumer.failed")[0]["error"])
    assert await pipeline.lag() == COUNT
    await allow(1_048_588)
    await worked_off(pipeline)
    assert (await pipeline.judge()).records == COUNT


async def test_a_topic_of_rubbish_blocks_the_lane_and_a_restart_goes_on_after_the_cause_is_gone(
    pipeline: Pipeline,
) -> None:
    rubbish = [Draft(b"k", b"{rubbish", now_ms(), order, broken=True) for order in range(500)]
    async with KafkaWriter(pipeline.settings) as writer:
        await writer.write(rubbish)
        await writer.flush()
    worker = await pipeline.start_worker()
    opened = await worker.logged("breaker.opened", 30)
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in str(opened)
    metrics = await worker.metrics()
    assert metrics["conversation_breaker_open"] == 1
    assert await worker.ready() == 503
    assert await pipeline.lag() == 450
    assert await worker.end(signal.SIGTERM, 10) == 0
    pipeline.change(dead_letters_consecutive_max=10_000, dead_letters_ratio_max=1.0)
    await worked_off(pipeline)
    assert (await pipeline.judge()).dead == 500
