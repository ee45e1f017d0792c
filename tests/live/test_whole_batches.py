"""What real producers and brokers make of batches: taken whole they hold the records that aiokafka reads."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from consumer.core.record import Record
from consumer.engine.choice import choose_records
from consumer.kafka.group_consumer import GroupConsumer, Listener
from consumer.simulator.traffic import Draft, Traffic, records
from tests.engines import engine_class
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.test_damage import configure

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
COUNT = 300
"""Records of each producer."""


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    engine_class("native")
    pipeline = Pipeline(kafka, unique_name("w"), tmp_path, engine="native")
    await pipeline.create()
    yield pipeline
    await pipeline.close()


async def write(pipeline: Pipeline) -> None:
    """With each codec: records, a transaction that is aborted among others of its producer, and headers."""
    drafts = records(Traffic(seed=9, start_ms=now_ms(), conversations=60))
    servers, topic = pipeline.settings.bootstrap_servers, pipeline.settings.input_topic
    for codec in CODECS:
        async with AIOKafkaProducer(bootstrap_servers=servers, compression_type=codec, linger_ms=20) as producer:
            await send(producer, topic, islice(drafts, COUNT))
        async with AIOKafkaProducer(
            bootstrap_servers=servers, compression_type=codec, linger_ms=20, transactional_id=f"{topic}-{codec}"
        ) as producer:
            async with producer.transaction():
                await send(producer, topic, islice(drafts, COUNT))
            with contextlib.suppress(ZeroDivisionError):
                async with producer.transaction():
                    await send(producer, topic, [Draft(b"aborted", b"no JSON", now_ms(), 0)] * COUNT)
                    raise ZeroDivisionError
            async with producer.transaction():
                await send(producer, topic, islice(drafts, COUNT))


async def send(producer: AIOKafkaProducer, topic: str, drafts: "Sequence[Draft] | islice[Draft]") -> None:
    headers = [("na\u00efve", None), ("x", b"1")]
    sent = [
        await producer.send(topic, draft.value, key=draft.key, timestamp_ms=draft.timestamp_ms, headers=headers)
        for draft in drafts
    ]
    await producer.flush()
    await asyncio.gather(*sent)


async def read_whole(pipeline: Pipeline) -> tuple[list[Record], dict[int, int | None]]:
    """The input as a group member of its own hands it on, and its positions at the end."""
    assigned = asyncio.Event()

    async def ignore_revocation(_: object) -> None:
        pass

    ends = await pipeline.ends(pipeline.settings.input_topic)
    reader = GroupConsumer(pipeline.settings, choose_records("native"))
    await reader.start(Listener(lambda _: assigned.set(), ignore_revocation))
    fetched: dict[int, list[Record]] = defaultdict(list)
    try:
        async with asyncio.timeout(WAIT_S):
            await assigned.wait()
            for partition in range(PARTITIONS):
                await reader.seek(partition, None)
                end = ends[TopicPartition(pipeline.settings.input_topic, partition)]
                while (await reader.position(partition) or 0) < end:
                    part = await reader.fetch(partition, 70, 0.2)
                    assert len(part) <= 70
                    assert not isinstance(part, list) or not part  # all of them are ordinary
                    fetched[partition].extend(part)
        positions = {partition: await reader.position(partition) for partition in range(PARTITIONS)}
    finally:
        await reader.stop()
    return [record for partition in sorted(fetched) for record in fetched[partition]], positions


@pytest.mark.parametrize(
    "changed",
    [{}, {"compression_type": "gzip"}, {"compression_type": "zstd", "message_timestamp_type": "LogAppendTime"}],
    ids=["producer", "recompressed", "append-time"],
)
async def test_batches_taken_whole_hold_what_aiokafka_reads(pipeline: Pipeline, changed: dict[str, str]) -> None:
    """A worker that takes them so publishes what the model expects."""
    settings = pipeline.settings
    async with asyncio.timeout(WAIT_S):
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
        await admin.start()
        try:
            await configure(admin, settings.input_topic, **changed)
        finally:
            await admin.close()
    await write(pipeline)
    plain = await pipeline.read(settings.input_topic)
    assert len(plain) == 3 * COUNT * len(CODECS)
    whole, positions = await read_whole(pipeline)
    assert whole == plain
    ends = await pipeline.ends(settings.input_topic)
    assert positions == {tp.partition: end for tp, end in ends.items()}
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    await pipeline.judge()
    assert worker.events("consumer.starting")[0]["engine"] == "native"
