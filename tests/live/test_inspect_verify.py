"""`inspect` and `verify` as a user starts them, against a real broker and what a real worker published."""

import asyncio
import contextlib
import json
import re
import signal
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from consumer.cli.exit_codes import DIFFERENCES, NOT_FOUND, OK
from consumer.core.record import Record
from consumer.simulator.traffic import Traffic
from tests import model
from tests.live.commands import Ended, ended, environ_of
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.stream import flow

RECORDS = 1_200
FLOW_S = 600.0
"""Longer than the commands take that are to come to an end meanwhile."""
Lines = list[dict[str, Any]]
AGE = re.compile(r"\d+[dhms]( \d+[hms])?")


async def command(pipeline: Pipeline, line: str) -> Ended:
    return await ended(line, environ_of(pipeline.settings))


def lines(ended: Ended) -> Lines:
    return [json.loads(line) for line in ended.printed.splitlines()]


async def write(pipeline: Pipeline, topic: str, record: Record, value: bytes | None) -> None:
    async with AIOKafkaProducer(bootstrap_servers=pipeline.settings.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, value, key=record.key, partition=record.partition)


async def delete_before(pipeline: Pipeline, tp: TopicPartition, offset: int) -> None:
    """What retention does in time."""
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_inspect_explains_a_conversation_by_its_records(pipeline: Pipeline) -> None:
    await pipeline.write_traffic(Traffic(seed=5, start_ms=now_ms(), conversations=50), RECORDS)
    await pipeline.start_worker()
    await pipeline.caught_up()
    source = await pipeline.read(pipeline.settings.input_topic)
    states = await pipeline.states()
    chosen = max(states, key=lambda key: sum(record.key == key.encode() for record in source))
    (home,) = {record.partition for record in source if record.key == chosen.encode()}
    mine = [
        record
        for record in source
        if record.partition == home
        and chosen.encode() in (record.key or b"") + (record.value or b"")
        and (record.key is not None or not isinstance(model.judge(record, model.Rules()), model.Ignored))
    ]
    keyless = {record.offset for record in mine if record.key is None}
    inspected = await command(pipeline, f"inspect {chosen} --why --json")
    assert inspected.exit_code == OK, inspected.printed
    first, *records, last, conclusion = lines(inspected)
    assert conclusion["kind"] == "conclusion"
    assert first["state"] == json.loads(states[chosen])
    assert [entry["offset"] for entry in records] == [record.offset for record in mine]
    assert [entry["disposition"] for entry in records if entry["offset"] in keyless] == ["dead_lettered"] * len(keyless)
    assert last["explainsState"]
    published = [
        json.loads(record.value or b"")
        for record in await pipeline.read(pipeline.settings.transitions_topic)
        if record.key == chosen.encode()
    ]
    assert [entry for record in records for entry in record.get("transitions", [])] == published
    shown = [entry["id"] for one in first["communications"] for entry in one["transitions"]]
    assert sorted(shown) == sorted(model.net(published))
    people = await command(pipeline, f"inspect {chosen} --why")
    assert people.exit_code == OK
    assert "the records consumed explain the published state" in people.printed
    brief = await command(pipeline, f"inspect {chosen} --why --brief")
    texts = (brief.printed, " ".join(conclusion["sentences"]))
    printed, concluded = (AGE.sub("", " ".join(text.split())) for text in texts)
    assert printed == concluded, "however wide the terminal is"
    missing = await command(pipeline, "inspect unknown")
    assert missing.exit_code == NOT_FOUND
    assert "no conversation 'unknown' in partition" in missing.printed


async def test_verify_finds_each_damage_and_none_while_a_worker_runs(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    flowing = asyncio.create_task(flow(settings, Traffic(seed=6, start_ms=now_ms(), conversations=50), FLOW_S))
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    meanwhile = await command(pipeline, "verify --json")
    assert not flowing.done()
    (summary,) = lines(meanwhile)
    assert (meanwhile.exit_code, summary["verdict"]) == (OK, "equal"), meanwhile.printed
    assert summary["excluded"].keys() <= {"ahead"}
    assert summary["equal"] > 0
    flowing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flowing
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0

    states = {record.key: record for record in await pipeline.read(settings.state_topic)}
    operations = await pipeline.read(settings.transitions_topic)
    damaged = await damage(pipeline, list(states.values()), operations)
    different = await command(pipeline, "verify --json")
    assert different.exit_code == DIFFERENCES, different.printed
    *differences, summary = lines(different)
    assert {(entry["conversationId"], entry["what"], entry["path"]) for entry in differences} == damaged.keys()
    (live,) = [entry for entry in differences if entry["path"] == "live"]
    assert live["published"] == int(f"9{live['recomputed']}")
    ends = await pipeline.ends(settings.input_topic)
    assert (summary["verdict"], summary["records"], summary["excluded"]) == ("different", sum(ends.values()), {})
    assert (summary["equal"], summary["different"]) == (len(states) - 3, 3)
    log = [json.loads(record.value or b"") for record in operations]
    assert (summary["transitions"], summary["differentTransitions"]) == (len(model.net(log)), 1)

    elsewhere = min(set(range(PARTITIONS)) - set(damaged.values()))
    await delete_before(pipeline, TopicPartition(settings.input_topic, elsewhere), 100)
    people = await command(pipeline, "verify --limit 1")
    assert people.exit_code == DIFFERENCES, people.printed
    assert f"partition {elsewhere} of the input no longer holds what was before offset 100" in people.printed
    assert "may have been seen before the first record that the input still holds" in people.printed
    assert "2 more conversations differ: see --limit" in people.printed
    part = await command(pipeline, f"verify --partition {elsewhere} --json")
    (summary,) = lines(part)
    assert (part.exit_code, summary["verdict"], summary["different"]) == (OK, "equal", 0)
    assert summary["excluded"].keys() == {"before_input"}
    assert summary["equal"] + summary["excluded"]["before_input"] == summary["conversations"]


async def damage(pipeline: Pipeline, states: list[Record], log: list[Record]) -> dict[tuple[str, str, str], int]:
    """Alter a state, remove another, retract a transition of a third conversation; the partition of each finding."""
    topics, damaged = pipeline.settings, {}
    altered, removed = states[:2]
    value = (altered.value or b"").replace(b'"live":', b'"live":9')
    await write(pipeline, topics.state_topic, altered, value)
    await write(pipeline, topics.state_topic, removed, None)
    stand = model.net([json.loads(record.value or b"") for record in log])
    keys = {altered.key, removed.key}
    victim = next(record for record in log if record.key not in keys and find_id(record) in stand)
    value = (victim.value or b"").replace(b'"op":"assert"', b'"op":"retract"')
    await write(pipeline, topics.transitions_topic, victim, value)
    for record, what, path in (
        (altered, "state", "live"),
        (removed, "state", ""),
        (victim, "transition", find_id(victim)),
    ):
        assert record.key is not None
        damaged[record.key.decode(), what, path] = record.partition
    return damaged


def find_id(operation: Record) -> str:
    """The id of a transition, empty for a retraction of it."""
    fields = json.loads(operation.value or b"")
    return str(fields["id"]) if fields["op"] == "assert" else ""
