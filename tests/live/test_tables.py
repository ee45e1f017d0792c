"""Kafka Connect keeps the outputs in tables of PostgreSQL, which are right after a killed sink and a redelivery."""

import asyncio
import datetime as dt
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError

from consumer.cli.exit_codes import OK
from consumer.simulator.traffic import Traffic
from tests.docs.pages import text_of
from tests.live.commands import WAIT_S, ended, environ_of
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.readers import needed, needed_readers
from tests.live.readers.connect import FOLDER, Connect
from tests.live.readers.postgres import Postgres, find_programs

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "load-into-tables.md"
COUNT = 6_000
RECORDS_PER_S = 10
_KILLS = 3


@pytest.fixture
async def database() -> AsyncIterator[Postgres]:
    async with Postgres(needed(find_programs())) as database:
        await database.run((FOLDER / "tables.sql").read_text())
        yield database


@pytest.fixture
async def connect(pipeline: Pipeline, database: Postgres, tmp_path: Path) -> AsyncIterator[Connect]:
    connect = Connect(needed_readers(), pipeline.settings, database.url, tmp_path)
    yield connect
    await connect.kill()


def consuming(group_id: str, pipeline: Pipeline) -> AIOKafkaConsumer:
    """A consumer that reads and writes the offsets of a group."""
    servers = pipeline.settings.bootstrap_servers
    return AIOKafkaConsumer(bootstrap_servers=servers, group_id=group_id, enable_auto_commit=False)


async def drained(sink: Connect, pipeline: Pipeline) -> None:
    """Wait until the sinks have committed the last records. Connect does not commit the markers that follow them."""
    for topic in (pipeline.settings.transitions_topic, pipeline.settings.state_topic):
        ends = {TopicPartition(topic, record.partition): record.next_offset for record in await pipeline.read(topic)}
        async with asyncio.timeout(WAIT_S), consuming(sink.group_of(topic), pipeline) as consumer:
            while any([(await consumer.committed(tp) or 0) < end for tp, end in ends.items()]):
                await asyncio.to_thread(sink.check)
                await asyncio.sleep(0.5)


async def rewind(sink: Connect, pipeline: Pipeline) -> None:
    """Commit the beginnings of the topics for the sinks, which were killed: their sessions have to end first."""
    for topic in (pipeline.settings.transitions_topic, pipeline.settings.state_topic):
        async with asyncio.timeout(WAIT_S), consuming(sink.group_of(topic), pipeline) as consumer:
            tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            consumer.assign(tps)
            while True:
                try:
                    await consumer.commit(dict.fromkeys(tps, 0))
                    break
                except CommitFailedError:
                    await asyncio.sleep(0.5)


def with_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its times parsed: an export and PostgreSQL spell them in their own ways."""
    return {name: dt.datetime.fromisoformat(value) if name.endswith("_time") else value for name, value in row.items()}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of an export."""
    return [json.loads(line) for file in folder.glob("transitions/*/*.jsonl") for line in file.open()]


async def compare(database: Postgres, pipeline: Pipeline, folder: Path) -> int:
    """Compare the tables with an export and with the state topic; returns the number of transitions that stand."""
    exported = await ended(f"export {folder} --format jsonl --table transitions", environ_of(pipeline.settings))
    assert exported.exit_code == OK, exported.printed
    expected = read_rows(folder)
    found = await database.query("SELECT * FROM transitions")
    assert {row["id"]: with_times(row) for row in found} == {row["id"]: with_times(row) for row in expected}
    log = await pipeline.read(pipeline.settings.state_topic)
    latest = {(record.key or b"").decode(): record.value for record in log}
    found = await database.query("SELECT conversation_id, document FROM latest_states")
    assert {row["conversation_id"]: row["document"] for row in found} == {
        conversation: json.loads(state) for conversation, state in latest.items() if state is not None
    }
    assert 0 < len(found) < len(latest), "some conversations are evicted, and some are not"
    (logged,) = await database.query("SELECT count(*) AS rows FROM transition_log")
    print(f"log {logged['rows']}, standing {len(expected)}, states {len(found)} of {len(latest)}")
    return len(expected)


@pytest.mark.timeout(900)
async def test_tables_are_right_after_kills_and_redelivery(
    pipeline: Pipeline, database: Postgres, connect: Connect, tmp_path: Path
) -> None:
    pipeline.change(retention_ended_s=60)
    worker = await pipeline.start_worker()
    start_ms = now_ms() - 1_000 * COUNT // RECORDS_PER_S
    traffic = Traffic(
        seed=19, start_ms=start_ms, records_per_s=RECORDS_PER_S, disorder=0.2, duplicates=0.1, conversations=100
    )
    rows = "SELECT count(*) AS rows FROM transition_log"
    for number in range(_KILLS):
        await pipeline.write_traffic(traffic, COUNT // _KILLS, skip=number * COUNT // _KILLS)
        before = await database.query(rows)
        await connect.start()
        async with asyncio.timeout(WAIT_S):
            while await database.query(rows) == before:
                await asyncio.to_thread(connect.check)
                await asyncio.sleep(0.05)
        await connect.kill()
    await connect.start()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    await drained(connect, pipeline)
    standing = await compare(database, pipeline, tmp_path / "first")

    changes = "SELECT max(xmin::text::bigint) AS newest, count(*) AS count FROM transitions"
    before = await database.query(changes)
    await connect.kill()
    await rewind(connect, pipeline)
    await connect.start()
    await drained(connect, pipeline)
    assert await compare(database, pipeline, tmp_path / "second") == standing
    assert await database.query(changes) == before, "a record of the log that comes again changes no transition"
    for query in re.findall(r"```sql\n(.*?)```", text_of(PAGE), re.DOTALL):
        printed = await database.run(query)
        assert printed or query.startswith("DELETE"), query
