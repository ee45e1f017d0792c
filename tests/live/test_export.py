"""`export` as a user starts it, beside a worker that goes on: its counts are those of `verify`."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path

from consumer.cli.exit_codes import OK
from consumer.simulator.traffic import Traffic
from tests import model
from tests.live.commands import Ended, ended, environ_of
from tests.live.harness import Pipeline, now_ms
from tests.live.stream import flow

FLOW_S = 600.0
TABLES = "--format jsonl --table transitions --table log --table states --table dead-letters"


async def command(pipeline: Pipeline, line: str) -> Ended:
    return await ended(line, environ_of(pipeline.settings))


def rows(folder: Path, table: str) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted(folder.glob(f"{table}/*/*.jsonl")) for line in file.open()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_export_has_what_verify_counts(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = pipeline.settings
    flowing = asyncio.create_task(flow(settings, Traffic(seed=6, start_ms=now_ms(), conversations=50), FLOW_S))
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    while not await pipeline.committed():
        await asyncio.sleep(0.1)
    meanwhile = await command(pipeline, f"export {tmp_path / 'meanwhile'} {TABLES}")
    assert meanwhile.exit_code == OK, meanwhile.printed
    assert not flowing.done()
    flowing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flowing
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0

    for name in ("first", "second"):
        exported = await command(pipeline, f"export {tmp_path / name} {TABLES}")
        assert exported.exit_code == OK, exported.printed
    assert files(tmp_path / "first") == files(tmp_path / "second"), "the same cut gives the same bytes"
    verified = await command(pipeline, "verify --json")
    (summary,) = map(json.loads, verified.printed.splitlines())
    assert summary["verdict"] == "equal"
    standing = rows(tmp_path / "first", "transitions")
    assert len(standing) == summary["transitions"] > 0
    assert len({row["conversation_id"] for row in rows(tmp_path / "first", "states")}) == summary["conversations"]
    log = [json.loads(record.value or b"") for record in await pipeline.read(settings.transitions_topic)]
    assert {row["id"] for row in standing} == model.net(log).keys()
    assert len(rows(tmp_path / "first", "log")) == len(log)
    letters = await pipeline.read(settings.dead_letters_topic)
    assert len(rows(tmp_path / "first", "dead-letters")) == len(letters)

    cut = json.loads((tmp_path / "meanwhile" / "manifest.json").read_bytes())
    committed = {part["partition"]: part["cut"]["committed"] for part in cut["parts"]}
    covered = [entry for entry in log if entry["source"]["offset"] < committed[entry["source"]["partition"]]]
    assert {row["id"] for row in rows(tmp_path / "meanwhile", "transitions")} == model.net(covered).keys()
