"""`dead-letters` and `rekey` on a real broker, killed amid their work: nothing is lost, and nothing is there twice."""

import asyncio
import contextlib
import json
import re
import signal
import statistics
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer.adapters.kafka.writer import KafkaWriter
from consumer.cli.exits import CONFIG, TERMINATED
from consumer.core.record import Record
from consumer.runtime.dead_letters import REDRIVES_HEADER
from consumer.runtime.redrive import is_marker
from consumer.runtime.republish import REKEY_OUTCOMES
from consumer.simulator.traffic import Draft, Traffic, records
from tests import model
from tests.live.commands import WAIT_S, Ended, ended, environ_of, environment
from tests.live.conftest import UniqueName
from tests.live.expectation import Expectation, expect
from tests.live.harness import PARTITIONS, Pipeline, documents_of, now_ms

pytestmark = pytest.mark.kafka

RECORDS = 400
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: TERMINATED}
"""How a command is ended amid its work, with the exit code."""
NUMBER_HEADER: Final = "number"
"""Which of the records written it is."""


async def command(pipeline: Pipeline, line: str) -> Ended:
    return await ended(line, environ_of(pipeline.settings))


@contextlib.asynccontextmanager
async def running(pipeline: Pipeline, line: str, number: signal.Signals) -> AsyncIterator[None]:
    """A command during the block, which it has to outlast; a signal ends it then."""
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


def redriven_now(told: Ended) -> int:
    """How many records a redrive says that it put back, or would."""
    assert told.exit_code == 0, told.printed
    found = re.search(r"(?:redrove|would redrive) (\d+)", told.printed)
    assert found, told.printed
    return int(found[1])


async def put_back(pipeline: Pipeline) -> list[Record]:
    """What redrives have put into the input so far."""
    source = await pipeline.read(pipeline.settings.input_topic)
    return [record for record in source if any(name == REDRIVES_HEADER for name, _ in record.headers)]


def bytes_of(records: list[Record]) -> Counter[tuple[int, bytes | None, bytes | None, int]]:
    return Counter((record.partition, record.key, record.value, record.timestamp_ms) for record in records)


async def ended_amid_a_redrive(pipeline: Pipeline, number: signal.Signals) -> None:
    """Start a slow redrive, and end it when some of it is visible in the input and some is not."""
    before = await pipeline.ends(pipeline.settings.input_topic)
    async with running(pipeline, "dead-letters redrive --reason too_large --rate 5 --yes", number):
        await grown(pipeline, before)


async def consumed(pipeline: Pipeline) -> None:
    """Wait until the last record is consumed; no worker commits the offset of the end of a transaction behind it."""
    source = await pipeline.read(pipeline.settings.input_topic)
    ends = {TopicPartition(record.topic, record.partition): record.next_offset for record in source}
    await pipeline.committed_up_to(ends)


async def assert_as_if_nothing_had_happened(pipeline: Pipeline, expected: Expectation) -> None:
    assert documents_of(await pipeline.states()) == expected.documents
    log = [json.loads(record.value or b"") for record in await pipeline.read(pipeline.settings.transitions_topic)]
    model.check_log(log)
    assert model.net(log) == expected.standing


async def test_dead_letters_go_back_once_and_leave_the_outputs_as_if_they_had_never_been(
    pipeline: Pipeline,
) -> None:
    topics = pipeline.settings
    await pipeline.feed(Traffic(seed=3, start_ms=now_ms(), conversations=50, broken=0.05), RECORDS)
    source = await pipeline.read(topics.input_topic)
    fault = int(statistics.quantiles([len(record.value or b"") for record in source], n=4)[2])
    pipeline.change(record_bytes_max=fault)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    letters = await pipeline.read(topics.dead_letters_topic)
    large = [record for record in letters if dict(record.headers)["cc-reason"] == b"too_large"]
    expected = expect(source, model.Rules())
    assert len(large) > RECORDS // 10
    assert len(letters) > len(large), "others are needed that a filter leaves out"

    pipeline.change(record_bytes_max=model.Rules().record_bytes_max)
    ends = await pipeline.ends(topics.input_topic), await pipeline.ends(topics.dead_letters_topic)
    assert redriven_now(await command(pipeline, "dead-letters redrive --reason too_large")) == len(large)
    assert ends == (await pipeline.ends(topics.input_topic), await pipeline.ends(topics.dead_letters_topic))

    first = await command(pipeline, "dead-letters redrive --reason too_large --partition 1 --limit 7 --yes")
    assert redriven_now(first) == len(await put_back(pipeline)) == 7
    for number in ENDS:
        await ended_amid_a_redrive(pipeline, number)
    done = len(await put_back(pipeline))
    assert 7 < done < len(large), "no end was amid the work"
    last = await command(pipeline, "dead-letters redrive --reason too_large --yes")
    assert 0 < redriven_now(last) <= len(large) - done
    again = await command(pipeline, "dead-letters redrive --reason too_large --yes")
    assert redriven_now(again) == 0
    originals = [record for record in source if len(record.value or b"") > fault]
    assert bytes_of(await put_back(pipeline)) == bytes_of(originals)

    listed = await command(pipeline, "dead-letters list --reason too_large --json")
    group = json.loads(listed.printed)
    assert (group["letters"], group["redriven"]) == (len(large), len(large))
    shown = await command(pipeline, "dead-letters show --reason too_large --limit 1 --json")
    assert [json.loads(line)["redriven"] for line in shown.printed.splitlines()] == [True]
    assert not any((record.key or b"?").decode() in shown.printed for record in large)

    await pipeline.start_worker()
    await consumed(pipeline)
    await assert_as_if_nothing_had_happened(pipeline, expected)
    after = await pipeline.read(topics.dead_letters_topic)
    returned = [each for each in after if not is_marker(each) and REDRIVES_HEADER in dict(each.headers)]
    hopeless = [each for each in originals if (each.partition, each.offset) in expected.rejected]
    assert Counter((each.key, each.value) for each in returned) == Counter((each.key, each.value) for each in hopeless)
    verified = await command(pipeline, "verify")
    assert verified.exit_code == 0, verified.printed
    skipped = redriven_now(await command(pipeline, "dead-letters redrive --yes"))
    assert skipped == len(letters) - len(large) + len(hopeless)
    await consumed(pipeline)
    await assert_as_if_nothing_had_happened(pipeline, expected)


async def write_wrongly_keyed(pipeline: Pipeline, drafts: list[tuple[int, Draft]]) -> None:
    """Records without a key, under another's, and under their own, in any partition, one after the other."""
    servers, topic = pipeline.settings.bootstrap_servers, pipeline.settings.input_topic
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for number, draft in drafts:
            key = (None, b"somebody", draft.key)[number % 3]
            headers = [*draft.headers, (NUMBER_HEADER, str(number).encode())]
            await producer.send_and_wait(topic, draft.value, key, number % PARTITIONS, draft.timestamp_ms, headers)


async def ended_amid_a_copy(
    source: Pipeline, target: Pipeline, number: signal.Signals, more: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Start a copy that follows its source, and end it when it has copied some of what is written meanwhile."""
    before = await target.ends(target.settings.input_topic)
    async with running(source, f"{copying(source, target)} --follow", number):
        await grown(target, before)
        writing = asyncio.create_task(more())
        await grown(target, await target.ends(target.settings.input_topic))
    await writing


def copying(source: Pipeline, target: Pipeline) -> str:
    return f"rekey {source.settings.input_topic} {target.settings.input_topic}"


async def grown(pipeline: Pipeline, before: Mapping[TopicPartition, int]) -> None:
    """Wait until more is committed to the input topic."""
    async with asyncio.timeout(WAIT_S):
        while await pipeline.ends(pipeline.settings.input_topic) == before:
            pass


async def test_a_topic_is_copied_once_under_conversation_ids_however_often_the_copy_is_killed(
    kafka: str, unique_name: UniqueName, tmp_path: Path
) -> None:
    source, target = (Pipeline(kafka, unique_name(name), tmp_path) for name in ("a", "b"))
    await source.create()
    await target.create()
    drafts = list(enumerate(islice(records(Traffic(seed=3, start_ms=now_ms(), conversations=50)), 1_000)))
    line = copying(source, target)
    for begin, number in zip(range(0, 800, 400), ENDS, strict=True):
        await write_wrongly_keyed(source, drafts[begin : begin + 50])
        await ended_amid_a_copy(
            source, target, number, partial(write_wrongly_keyed, source, drafts[begin + 50 : begin + 400])
        )
    await write_wrongly_keyed(source, drafts[800:])
    copied = len(await target.read(target.settings.input_topic))
    assert 0 < copied < len(drafts)
    last, again = [await command(source, f"{line} --json") for _ in range(2)]
    assert (last.exit_code, again.exit_code) == (0, 0), last.printed + again.printed
    counts = [sum(json.loads(each.printed)[name] for name in REKEY_OUTCOMES) for each in (last, again)]
    assert 0 < counts[0] <= len(drafts) - copied
    assert counts[1] == 0

    given = {number_of(record): record for record in await source.read(source.settings.input_topic)}
    found = await target.read(target.settings.input_topic)
    assert sorted(number_of(record) for record in found) == sorted(given)
    assert len(given) == len(drafts)
    rules = model.Rules(key_mismatch="apply")
    rekeyed = 0
    for record in found:
        original = given[number_of(record)]
        assert (record.value, record.timestamp_ms) == (original.value, original.timestamp_ms)
        sight = model.judge(original, rules)
        if isinstance(sight, model.Sight):
            assert record.key == sight.conversation_id.encode()
            rekeyed += record.key != original.key
            assert model.judge(record, model.Rules()) == sight
    assert rekeyed > len(drafts) // 2
    for partition, origin in product(range(PARTITIONS), repeat=2):
        numbers = [number_of(each) for each in found if each.partition == partition]
        mine = [number for number in numbers if given[number].partition == origin]
        assert mine == sorted(mine)


def number_of(record: Record) -> int:
    return int(dict(record.headers)[NUMBER_HEADER] or b"")


async def test_records_too_old_for_a_topic_name_its_setting(
    kafka: str, unique_name: UniqueName, tmp_path: Path
) -> None:
    """Neither a copy nor a redrive changes the timestamp of a record."""
    source, target = (Pipeline(kafka, unique_name(name), tmp_path) for name in ("a", "b"))
    await source.create()
    await target.create()
    async with KafkaWriter(source.settings) as writer:
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
    for line in ("dead-letters redrive --yes", copying(source, target)):
        told = await command(source, line)
        assert told.exit_code == CONFIG, told.printed
        assert "raise its message.timestamp.before.max.ms" in told.printed
