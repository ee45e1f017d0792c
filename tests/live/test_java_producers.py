"""What Kafka's own producers write with each codec is taken whole, and holds the records that aiokafka reads."""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from consumer.core.record import Record
from consumer.simulator.traffic import Draft, Traffic, records
from tests.engines import engine_class
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import Pipeline, now_ms
from tests.live.java_producers import HEADERS, JavaProducers
from tests.live.test_whole_batches import read_whole

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COUNT = 300
"""Records of each producer whose records are committed."""
ABORTED = b'{"topicName":"channel.metadata","eventBody":{"message":"aborted"}}'
COMMITTED = b'{"topicName":"channel.metadata","eventBody":{"message":"WebSocket Heartbeat"}}'


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    engine_class("native")
    pipeline = Pipeline(kafka, unique_name("j"), tmp_path, engine="native")
    await pipeline.create()
    yield pipeline
    await pipeline.close()


async def write_and_abort(pipeline: Pipeline, producers: JavaProducers, codec: str, drafts: list[Draft]) -> None:
    """Keyed records, a transaction whose producer is killed, and further ones that are committed."""
    await producers.write(codec, drafts)
    killed = await producers.write_amid_transaction(codec, [ABORTED])
    try:
        async with asyncio.timeout(WAIT_S):
            while not await has_open_transaction(pipeline):
                assert killed.returncode is None
                await asyncio.sleep(0.1)
    finally:
        if killed.returncode is None:
            killed.kill()
        await killed.communicate()
    await producers.write_transactions(codec, [COMMITTED], COUNT)


async def has_open_transaction(pipeline: Pipeline) -> bool:
    topic = pipeline.settings.input_topic
    return await pipeline.ends(topic) != await pipeline.ends(topic, "read_uncommitted")


def describe(record: Record) -> tuple[bytes | None, bytes | None, bool]:
    return record.key, record.value, bool(record.headers)


async def test_batches_of_java_producers_are_taken_whole(pipeline: Pipeline, tmp_path: Path) -> None:
    """A worker that takes them so publishes what the model expects; aborted records are read by neither."""
    settings = pipeline.settings
    traffic = records(Traffic(seed=11, start_ms=now_ms(), conversations=60, broken=0, ignorable=0))
    producers = JavaProducers(needed_jars(), settings.bootstrap_servers, settings.input_topic, tmp_path)
    written: list[Draft] = []
    for codec in CODECS:
        drafts = list(islice(traffic, COUNT))
        written += drafts
        await write_and_abort(pipeline, producers, codec, drafts)
    plain = await pipeline.read(settings.input_topic)
    keyed = [(draft.key, draft.value, True) for draft in written]
    committed = [(None, COMMITTED, False)] * COUNT * len(CODECS)
    assert sorted(map(describe, plain), key=repr) == sorted([*keyed, *committed], key=repr)
    headers = {record.headers for record in plain if record.key}
    assert headers == {
        tuple((name, value.encode()) for name, value in (pair.split(":") for pair in HEADERS.split(",")))
    }
    whole, positions = await read_whole(pipeline)
    assert whole == plain
    ends = await pipeline.ends(settings.input_topic)
    assert positions == {tp.partition: end for tp, end in ends.items()}
    await pipeline.start_worker()
    await pipeline.caught_up()
    judged = await pipeline.judge()
    assert judged.records == len(plain)
