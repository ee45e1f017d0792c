"""`dead-letters` on a real broker: a planted fault, its end, and the outputs as if nothing had happened."""

import asyncio
import json
import re
import signal
import statistics
import sys
from collections import Counter

import pytest

from consumer.core.record import Record
from consumer.runtime.dead_letters import REDRIVES_HEADER
from consumer.runtime.redrive import is_marker
from consumer.simulator.traffic import Traffic
from tests import model
from tests.live.commands import Ended, ended, environment
from tests.live.expectation import Expectation, expect
from tests.live.harness import Pipeline, now_ms

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(170)]

RECORDS = 600
KILLS = 3
NAMES = ("bootstrap_servers", "input_topic", "state_topic", "transitions_topic", "dead_letters_topic", "group_id")


async def command(pipeline: Pipeline, line: str) -> Ended:
    return await ended(line, environ(pipeline), 60)


def environ(pipeline: Pipeline) -> dict[str, str]:
    return {f"CC_{name.upper()}": getattr(pipeline.settings, name) for name in NAMES}


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


async def killed_amid_a_redrive(pipeline: Pipeline) -> None:
    """Start a slow redrive, and kill it when some of it is visible in the input and some is not."""
    before = sum((await pipeline.ends(pipeline.settings.input_topic)).values())
    line = "dead-letters redrive --reason too_large --rate 20 --yes"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *line.split(), env=environment(environ(pipeline)),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while sum((await pipeline.ends(pipeline.settings.input_topic)).values()) == before:
                assert process.returncode is None
    finally:
        process.kill()
    assert await process.wait() == -signal.SIGKILL


async def assert_as_if_nothing_had_happened(pipeline: Pipeline, expected: Expectation) -> None:
    states = {key: json.loads(state) for key, state in (await pipeline.states()).items()}
    for state in states.values():
        del state["source"]
    assert states == expected.documents
    log = [json.loads(record.value or b"") for record in await pipeline.read(pipeline.settings.transitions_topic)]
    model.check_log(log)
    assert model.net(log) == expected.standing


async def test_dead_letters_go_back_once_and_leave_the_outputs_as_if_they_had_never_been(
    pipeline: Pipeline,
) -> None:
    topics = pipeline.settings
    await pipeline.feed(Traffic(seed=3, start_ms=now_ms(), conversations=50), RECORDS)
    source = await pipeline.read(topics.input_topic)
    fault = int(statistics.quantiles([len(record.value or b"") for record in source], n=4)[2])
    pipeline.change(record_bytes_max=fault)
    worker = await pipeline.start_worker()
    await pipeline.caught_up(60)
    assert await worker.end(signal.SIGTERM, 15) == 0
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
    for _ in range(KILLS):
        await killed_amid_a_redrive(pipeline)
    done = len(await put_back(pipeline))
    assert 7 < done < len(large), "no kill was amid the work"
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
    assert all(json.loads(line)["redriven"] for line in shown.printed.splitlines())
    assert not any((record.key or b"?").decode() in shown.printed for record in large)

    await pipeline.start_worker()
    await pipeline.caught_up(60)
    await assert_as_if_nothing_had_happened(pipeline, expected)
    after = await pipeline.read(topics.dead_letters_topic)
    assert [record for record in after if not is_marker(record)] == letters
    verified = await command(pipeline, "verify")
    assert verified.exit_code == 0, verified.printed
    skipped = redriven_now(await command(pipeline, "dead-letters redrive --yes"))
    assert skipped == len(letters) - len(large)
    await pipeline.caught_up(60)
    await assert_as_if_nothing_had_happened(pipeline, expected)
