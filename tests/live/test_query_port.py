"""The query port of real workers on a real broker: every worker answers for every conversation."""

import asyncio
import time
from typing import Any

import msgspec
from aiohttp import ClientSession, ClientTimeout
from aiokafka import AIOKafkaProducer

from consumer.kafka.state_lookup import KafkaStateLookup
from consumer.query.lookup import Found, Unfinished
from consumer.simulator.traffic import Traffic
from tests.live.commands import WAIT_S
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.worker_process import WorkerProcess

RECORDS = 1_500
LOOKUPS = 60
GATEWAY_TIMEOUT = 504


async def get(client: ClientSession, worker: WorkerProcess, path: str) -> tuple[int, Any]:
    """Status and body of an answer; retries if the worker ran out of time to read its topic."""
    port = (await worker.logged("consumer.starting"))["query_port"]
    async with asyncio.timeout(WAIT_S):
        while True:
            async with client.get(f"http://127.0.0.1:{port}/api/v1{path}") as answer:
                if answer.status != GATEWAY_TIMEOUT:
                    return answer.status, msgspec.json.decode(await answer.read())


async def wait_for_lanes(worker: WorkerProcess, count: int) -> set[int]:
    """Wait until a worker has `count` partitions; returns them."""
    async with asyncio.timeout(WAIT_S):
        while True:
            assigned = worker.events("group.assigned")
            if assigned and len(assigned[-1]["partitions"]) == count:
                return set(assigned[-1]["partitions"])
            await asyncio.sleep(0.05)


async def test_every_worker_answers_for_every_conversation(pipeline: Pipeline) -> None:
    await pipeline.write_traffic(Traffic(seed=11, start_ms=now_ms(), conversations=200), RECORDS)
    first = await pipeline.start_worker()
    second = await pipeline.start_worker()
    owned = await wait_for_lanes(first, 2) | await wait_for_lanes(second, 2)
    assert owned == set(range(PARTITIONS))
    await pipeline.caught_up()
    async with asyncio.timeout(WAIT_S):
        while {await first.ready(), await second.ready()} != {200}:
            await asyncio.sleep(0.1)
    states = {record.key: record for record in await pipeline.read(pipeline.settings.state_topic)}
    mine = await wait_for_lanes(first, 2)
    looked_up = [
        record
        for partition in range(PARTITIONS)
        for record in [state for state in states.values() if state.partition == partition][: LOOKUPS // PARTITIONS]
    ]
    slowest_s = 0.0
    async with ClientSession(timeout=ClientTimeout(total=WAIT_S)) as client:
        for record in looked_up:
            assert record.key is not None
            assert record.value is not None
            conversation_id = record.key.decode()
            started_s = time.monotonic()
            status, answer = await get(client, first, f"/conversations/{conversation_id}")
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert status == 200, answer
            assert answer == {
                "partition": record.partition,
                "origin": "worker" if record.partition in mine else "state_topic",
                "state": msgspec.json.decode(record.value),
            }
            here, there = [
                await get(client, worker, f"/conversations/{conversation_id}/timeline") for worker in (first, second)
            ]
            assert here[1]["communications"] == there[1]["communications"]
            assert here[1]["origin"] != there[1]["origin"]
        origins = {record.partition in mine for record in looked_up}
        missing = [await get(client, first, f"/conversations/none-{number}") for number in range(8)]
    print(f"{len(looked_up)} lookups, slowest {slowest_s * 1e3:.0f} ms")
    assert origins == {True, False}
    assert {status for status, _ in missing} == {404}
    assert {"this worker's" in problem["title"] for _, problem in missing} == {True, False}
    assert all((problem["partition"] in mine) == ("this worker's" in problem["title"]) for _, problem in missing)


async def test_lookup_reads_only_committed_states_in_bounded_time(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    lookup = KafkaStateLookup(settings, within_s=WAIT_S)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id, transaction_timeout_ms=30_000
    )

    async def write(*entries: tuple[bytes, bytes | None]) -> None:
        sends = [await producer.send(settings.state_topic, value, key=key, partition=2) for key, value in entries]
        await asyncio.gather(*sends)

    async with asyncio.timeout(WAIT_S), producer:
        assert await lookup.newest(2, b"a") == Found(2, "state_topic", None)
        async with producer.transaction():
            await write((b"a", b"1"), (b"b", b"1"), (b"a", b"2"))
        async with producer.transaction():  # moves the records above beyond the first two parts of a search
            await write(*((b"filler", b"x") for _ in range(7_000)))
        async with producer.transaction():
            await write((b"b", None))
        async with producer.transaction():
            await write((b"c", b"1"))
        await producer.begin_transaction()
        await write((b"a", b"aborted"), (b"c", b"aborted"))
        await producer.abort_transaction()
        await producer.begin_transaction()
        await write((b"a", b"open"), (b"c", b"open"))
        assert await lookup.newest(2, b"a") == Found(2, "state_topic", b"2")
        assert await lookup.newest(2, b"b") == Found(2, "state_topic", None)
        assert await lookup.newest(2, b"c") == Found(2, "state_topic", b"1")
        assert await lookup.newest(2, b"d") == Found(2, "state_topic", None)
        await producer.abort_transaction()
        unfinished = await KafkaStateLookup(settings, within_s=0).newest(2, b"a")
        assert isinstance(unfinished, Unfinished)
        assert unfinished.begin == 0
        assert unfinished.read_from > 7_000
