"""`dead-letters` and `rekey` on a real broker, killed while they work: no record is lost or written twice."""

import asyncio
import contextlib
import json
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from msgspec.structs import replace

from consumer.cli.exit_codes import CONFIG, TERMINATED
from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.engine.dead_letters import REDRIVES_HEADER, DeadLetterFormat, build, is_marker
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.republish import REKEY_OUTCOMES
from consumer.tools.traffic_writer import TrafficWriter
from tests import model
from tests.live.commands import WAIT_S, Ended, ended, environ_of, environment
from tests.live.conftest import CreateTopics, UniqueName
from tests.live.expectation import Expectation, expect
from tests.live.harness import PARTITIONS, Pipeline, documents_of, now_ms

RECORDS = 400
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: TERMINATED}
"""Signals that end a command while it works, with its exit code."""
NUMBER_HEADER: Final = "number"
"""The header with the number of a record, in the order of writing."""


async def run_command(pipeline: Pipeline, line: str) -> Ended:
    return await ended(line, environ_of(pipeline.settings))


@contextlib.asynccontextmanager
async def interrupt(pipeline: Pipeline, line: str, number: signal.Signals) -> AsyncIterator[None]:
    """Run a command during the block, and end it with a signal afterwards; it must still run then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *line.split(), env=environment(environ_of(pipeline.settings)),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
        assert process.returncode is None
    finally:
        process.send_signal(number)
    async with asyncio.timeout(WAIT_S):
        assert await process.wait() == ENDS[number]


def parse_count(redrive: Ended) -> int:
    """The number of records that a redrive has written back, or would write, by its output."""
    assert redrive.exit_code == 0, redrive.printed
    match = re.search(r"(?:redrove|would redrive) (\d+)", redrive.printed)
    assert match, redrive.printed
    return int(match[1])


async def read_redriven(pipeline: Pipeline) -> list[Record]:
    """The records that redrives have written to the input so far."""
    source = await pipeline.read(pipeline.settings.input_topic)
    return [record for record in source if any(name == REDRIVES_HEADER for name, _ in record.headers)]


def count_contents(records: list[Record]) -> Counter[tuple[int, bytes | None, bytes | None, int]]:
    return Counter((record.partition, record.key, record.value, record.timestamp_ms) for record in records)


async def end_within_a_redrive(pipeline: Pipeline, number: signal.Signals) -> None:
    """Start a slow redrive, and end it when a part of it is committed."""
    before = await pipeline.ends(pipeline.settings.input_topic)
    async with interrupt(pipeline, "dead-letters redrive --reason too_large --rate 5 --yes --again", number):
        await wait_for_growth(pipeline, before)


async def consume_all(pipeline: Pipeline) -> None:
    """Wait until the last record is consumed. The end offset would not do: no worker commits past the last marker."""
    source = await pipeline.read(pipeline.settings.input_topic)
    ends = {TopicPartition(record.topic, record.partition): record.next_offset for record in source}
    await pipeline.committed_up_to(ends)


async def assert_outputs_equal(pipeline: Pipeline, expected: Expectation) -> None:
    assert documents_of(await pipeline.states()) == expected.documents
    log = [json.loads(record.value or b"") for record in await pipeline.read(pipeline.settings.transitions_topic)]
    model.check_log(log)
    assert model.net(log) == expected.standing


async def test_redrive_writes_dead_letters_back_once(pipeline: Pipeline) -> None:
    """Afterwards the outputs are as if the records had never been dead letters."""
    topics = pipeline.settings
    await pipeline.write_traffic(Traffic(seed=3, start_ms=now_ms(), conversations=50, broken=0.05), RECORDS)
    source = await pipeline.read(topics.input_topic)
    fault = int(statistics.quantiles([len(record.value or b"") for record in source], n=4)[2])
    pipeline.change(record_bytes_max=fault)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    letters = await pipeline.read(topics.dead_letters_topic)
    large = [record for record in letters if dict(record.headers)["cc-reason"] == b"too_large"]
    expected = expect(source, model.Rules())
    assert len(letters) > len(large) > RECORDS // 10, "the test needs letters that the filter excludes"

    pipeline.change(record_bytes_max=model.Rules().record_bytes_max)
    ends = await pipeline.ends(topics.input_topic), await pipeline.ends(topics.dead_letters_topic)
    assert parse_count(await run_command(pipeline, "dead-letters redrive --reason too_large --again")) == len(large)
    originals = [record for record in source if len(record.value or b"") > fault]
    unusable = [record for record in originals if (record.partition, record.offset) in expected.rejected]
    usable = len(large) - len(unusable)
    assert parse_count(await run_command(pipeline, "dead-letters redrive --reason too_large")) == usable
    assert ends == (await pipeline.ends(topics.input_topic), await pipeline.ends(topics.dead_letters_topic))

    first = await run_command(pipeline, "dead-letters redrive --reason too_large --partition 1 --limit 7 --yes --again")
    assert parse_count(first) == len(await read_redriven(pipeline)) == 7
    for number in ENDS:
        await end_within_a_redrive(pipeline, number)
    done = len(await read_redriven(pipeline))
    assert 7 < done < len(large), "no signal came while the command worked"
    last = await run_command(pipeline, "dead-letters redrive --reason too_large --yes --again")
    assert 0 < parse_count(last) <= len(large) - done
    again = await run_command(pipeline, "dead-letters redrive --reason too_large --yes --again")
    assert parse_count(again) == 0
    assert count_contents(await read_redriven(pipeline)) == count_contents(originals)

    listed = await run_command(pipeline, "dead-letters list --reason too_large --json")
    group = json.loads(listed.printed)
    assert (group["letters"], group["redriven"]) == (len(large), len(large))
    listing = await run_command(pipeline, "dead-letters show --reason too_large --limit 1 --json")
    assert [json.loads(line)["redriven"] for line in listing.printed.splitlines()] == [True]
    assert not any((record.key or b"?").decode() in listing.printed for record in large)

    await pipeline.start_worker()
    await consume_all(pipeline)
    await assert_outputs_equal(pipeline, expected)
    after = await pipeline.read(topics.dead_letters_topic)
    returned = [record for record in after if not is_marker(record) and REDRIVES_HEADER in dict(record.headers)]
    assert Counter((record.key, record.value) for record in returned) == Counter(
        (record.key, record.value) for record in unusable
    )
    verified = await run_command(pipeline, "verify")
    assert verified.exit_code == 0, verified.printed
    assert parse_count(await run_command(pipeline, "dead-letters redrive --yes")) == 0, "no cause is fixed"
    skipped = parse_count(await run_command(pipeline, "dead-letters redrive --yes --again"))
    assert skipped == len(letters) - len(large) + len(unusable)
    await consume_all(pipeline)
    await assert_outputs_equal(pipeline, expected)


async def list_letters_s(pipeline: Pipeline, create_topics: CreateTopics, partitions: int) -> float:
    """How long it takes to list a dead letter of each of so many partitions."""
    topic = f"{pipeline.settings.dead_letters_topic}-{partitions}"
    pipeline.change(dead_letters_topic=topic)
    await create_topics(pipeline.settings.bootstrap_servers, {topic: (partitions, {})})
    record = Record(pipeline.settings.input_topic, 0, 0, now_ms(), b"c1", b"{}")
    letter = build(
        record,
        DeadLettered("no_time", "", None),
        DeadLetterFormat(keep_payload=True, payload_bytes_max=100, version="1"),
    )
    async with AIOKafkaProducer(bootstrap_servers=pipeline.settings.bootstrap_servers) as producer:
        for number in range(partitions):
            await producer.send_and_wait(topic, letter.value, letter.key, number, headers=list(letter.headers))
    began_s = time.monotonic()
    listed = await run_command(pipeline, "dead-letters list --json")
    taken_s = time.monotonic() - began_s
    assert json.loads(listed.printed)["letters"] == partitions
    return taken_s


async def test_dead_letters_of_many_partitions_are_listed_quickly(
    pipeline: Pipeline, create_topics: CreateTopics
) -> None:
    """Partitions are read side by side: one after the other, with a wait at each end, 64 take a minute and a half."""
    one_s, many_s = [await list_letters_s(pipeline, create_topics, partitions) for partitions in (1, 64)]
    print(f"{one_s:.1f} s for one partition, {many_s:.1f} s for 64")
    assert many_s < 4 * one_s, f"{many_s:.1f} s for 64 partitions, {one_s:.1f} s for one"


async def write_wrongly_keyed(pipeline: Pipeline, drafts: list[tuple[int, Draft]]) -> None:
    """Write records without a key, with a wrong one and with their own, in turn and to any partition."""
    servers, topic = pipeline.settings.bootstrap_servers, pipeline.settings.input_topic
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for number, draft in drafts:
            key = (None, b"another", draft.key)[number % 3]
            headers = [*draft.headers, (NUMBER_HEADER, str(number).encode())]
            await producer.send_and_wait(topic, draft.value, key, number % PARTITIONS, draft.timestamp_ms, headers)


async def end_within_a_copy(
    source: Pipeline, target: Pipeline, number: signal.Signals, more: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Start a copy that follows its source, and end it when it has copied a part of what `more` writes."""
    before = await target.ends(target.settings.input_topic)
    async with interrupt(source, f"{rekey_line(source, target)} --follow", number):
        await wait_for_growth(target, before)
        writing = asyncio.create_task(more())
        await wait_for_growth(target, await target.ends(target.settings.input_topic))
    await writing


def rekey_line(source: Pipeline, target: Pipeline) -> str:
    return f"rekey {source.settings.input_topic} {target.settings.input_topic}"


async def wait_for_growth(pipeline: Pipeline, before: Mapping[TopicPartition, int]) -> None:
    """Wait until more is committed to the input topic."""
    async with asyncio.timeout(WAIT_S):
        while await pipeline.ends(pipeline.settings.input_topic) == before:
            pass


async def test_rekey_copies_a_topic_once_though_killed(kafka: str, unique_name: UniqueName, tmp_path: Path) -> None:
    """The copies have conversation ids as keys and keep the order of their source partition."""
    source, target = (Pipeline(kafka, unique_name(name), tmp_path) for name in ("a", "b"))
    await source.create()
    await target.create()
    drafts = list(enumerate(islice(records(Traffic(seed=3, start_ms=now_ms(), conversations=50)), 1_000)))
    line = rekey_line(source, target)
    for begin, number in zip(range(0, 800, 400), ENDS, strict=True):
        await write_wrongly_keyed(source, drafts[begin : begin + 50])
        await end_within_a_copy(
            source, target, number, partial(write_wrongly_keyed, source, drafts[begin + 50 : begin + 400])
        )
    await write_wrongly_keyed(source, drafts[800:])
    copied = len(await target.read(target.settings.input_topic))
    assert 0 < copied < len(drafts)
    last, again = [await run_command(source, f"{line} --json") for _ in range(2)]
    assert (last.exit_code, again.exit_code) == (0, 0), last.printed + again.printed
    counts = [sum(json.loads(result.printed)[name] for name in REKEY_OUTCOMES) for result in (last, again)]
    assert 0 < counts[0] <= len(drafts) - copied
    assert counts[1] == 0

    originals = {number_of(record): record for record in await source.read(source.settings.input_topic)}
    copies = await target.read(target.settings.input_topic)
    assert sorted(number_of(record) for record in copies) == sorted(originals)
    assert len(originals) == len(drafts)
    rules = model.Rules()
    rekeyed = 0
    for record in copies:
        original = originals[number_of(record)]
        assert (record.value, record.timestamp_ms) == (original.value, original.timestamp_ms)
        verdict = model.judge(replace(original, key=record.key), rules)
        assert verdict != model.Rejected("key_mismatch")
        if isinstance(verdict, model.Snapshot):
            rekeyed += record.key != original.key
            assert model.judge(record, rules) == verdict
    assert rekeyed > len(drafts) // 2
    for partition, origin in product(range(PARTITIONS), repeat=2):
        numbers = [number_of(record) for record in copies if record.partition == partition]
        same_origin = [number for number in numbers if originals[number].partition == origin]
        assert same_origin == sorted(same_origin)


def number_of(record: Record) -> int:
    return int(dict(record.headers)[NUMBER_HEADER] or b"")


async def test_topic_that_refuses_old_records_is_reported(kafka: str, unique_name: UniqueName, tmp_path: Path) -> None:
    """Copies and redrives keep timestamps, so a broker may refuse them. The error names the setting of the topic."""
    source, target = (Pipeline(kafka, unique_name(name), tmp_path) for name in ("a", "b"))
    await source.create()
    await target.create()
    async with TrafficWriter(source.settings) as writer:
        await writer.write([Draft(b"c1", b"no JSON", now_ms() - 48 * 3_600_000, 0)])
        await writer.flush()
    worker = await source.start_worker()
    await source.caught_up(60)
    assert await worker.end(signal.SIGTERM, 15) == 0
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    try:
        for topic in (source.settings.input_topic, target.settings.input_topic):
            limit = {"message.timestamp.before.max.ms": "3600000"}
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])
    finally:
        await client.close()
    for line in ("dead-letters redrive --yes --again", rekey_line(source, target)):
        result = await run_command(source, line)
        assert result.exit_code == CONFIG, result.printed
        assert "raise its message.timestamp.before.max.ms" in result.printed
