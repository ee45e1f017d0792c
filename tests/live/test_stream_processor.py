"""The example of a stream processor, on Kafka Streams: its counts are those of the transitions that stand."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from consumer.simulator.traffic import Traffic
from tests.live.commands import WAIT_S
from tests.live.conftest import CreateTopics
from tests.live.harness import Pipeline, now_ms
from tests.live.readers import java, needed_readers

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "ConnectedByQueue.java"
COUNT = 6_000


@asynccontextmanager
async def streaming(pipeline: Pipeline, counts: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The example as a process, which is killed in the end."""
    options = {"state.dir": home / "streams", "commit.interval.ms": 100, "replication.factor": 1}
    settings = pipeline.settings
    with (home / "streams.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *java(needed_readers(), home), *(f"-Dstreams.{name}={value}" for name, value in options.items()),
            str(SOURCE), settings.bootstrap_servers, settings.transitions_topic, counts, f"{settings.group_id}-streams",
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
        assert process.returncode is None, (home / "streams.log").read_text()[-4_000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_counts(pipeline: Pipeline, topic: str, suffices: Callable[[dict[str, int]], bool]) -> None:
    """Read the counts from the beginning, until they suffice."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=pipeline.settings.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    found: dict[str, int] = {}
    async with asyncio.timeout(WAIT_S), consumer:
        while not suffices(found):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found |= {record.key.decode(): int(record.value) for record in records}


async def count_standing(pipeline: Pipeline) -> Counter[str]:
    """What the example counts, from the operations in the order of their topic: per id the last one counts."""
    log = [json.loads(record.value or b"") for record in await pipeline.read(pipeline.settings.transitions_topic)]
    last = {operation["id"]: operation for operation in log}
    return Counter(
        f"{operation['context']['queueId']} {operation['eventTime'][:13]}"
        for operation in last.values()
        if operation["op"] == "assert"
        and operation["to"] == "connected"
        and operation["context"].get("purpose") == "agent"
        and "queueId" in operation["context"]
    )


@pytest.mark.timeout(900)
async def test_counts_are_right_after_a_kill(pipeline: Pipeline, create_topics: CreateTopics, tmp_path: Path) -> None:
    settings, counts = pipeline.settings, f"{pipeline.settings.group_id}-counts"
    await create_topics(settings.bootstrap_servers, {counts: (1, {})})
    traffic = Traffic(seed=19, start_ms=now_ms(), disorder=0.3, conversations=50)
    worker = await pipeline.start_worker()
    async with streaming(pipeline, counts, tmp_path):
        await pipeline.write_traffic(traffic, COUNT // 2)
        await read_counts(pipeline, counts, lambda found: len(found) > 0)
    await pipeline.write_traffic(traffic, COUNT // 2, skip=COUNT // 2)
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    expected = await count_standing(pipeline)
    async with streaming(pipeline, counts, tmp_path):
        await read_counts(pipeline, counts, lambda found: +Counter(found) == expected)
    operations = Counter(
        json.loads(record.value or b"")["op"] for record in await pipeline.read(settings.transitions_topic)
    )
    assert operations["retract"] > 0
    print(f"{operations}, connected by queue and hour: {dict(expected)}")
