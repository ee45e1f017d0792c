"""Exports of topics in memory: which rows stand, what is in the files, and how an interrupted one goes on."""

import asyncio
import csv
import io
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from pyarrow import parquet

from consumer.core.record import Record
from consumer.kafka.records import partition_of
from consumer.simulator.traffic import Traffic, records
from consumer.tools.export import Exporter, find_parts, topic_of
from consumer.tools.export_files import MANIFEST, DirectoryError, ExportDirectory, FileFormat, Manifest
from consumer.tools.export_rows import ROWS, TIMES, Selection, TableName
from consumer.worker.ports import Committed, ConfigurationError
from schemas.transition import WIRE_NAMES
from tests import model
from tests.strategies import TOPIC, at, histories, number_offsets
from tests.tools.exports import EVERYTHING, SETTINGS, Topics, export, files_of, quiet, request_of, rows_of
from tests.tools.test_verification import publish
from tests.worker.scenes import call, rubbish

TABLES = list(get_args(TableName))
FORMATS = get_args(FileFormat)
LOG = SETTINGS.transitions_topic
FEW = settings(max_examples=settings().max_examples // 10)
"""Each example syncs files to disk."""


def traffic(count: int, partitions: int = 2, **fields: Any) -> list[Record]:
    """Generated records of two days, by partition."""
    parameters = Traffic(**{"seed": 11, "conversations": 20, "records_per_s": 0.002} | fields)
    made: list[Record] = []
    for number, draft in enumerate(islice(records(parameters), count)):
        partition = partition_of(draft.key or b"", partitions)
        made.append(Record(TOPIC, partition, number, draft.timestamp_ms, draft.key, draft.value, draft.headers))
    return made


def operations(topics: Topics) -> list[dict[str, Any]]:
    """The log of transitions, one partition after the other."""
    return [
        msgspec.json.decode(record.value or b"")
        for (topic, _), log in sorted(topics.logs.items())
        if topic == LOG
        for record in log
    ]


def as_published(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by id, with what the model keeps of a transition that stands."""
    names = {column: WIRE_NAMES.get(column, column) for column in (*WIRE_NAMES, "id", "media")}
    return {row["id"]: {wire: row[column] for column, wire in names.items()} for row in rows}


@FEW
@given(histories())
def test_standing_rows_are_those_that_the_model_leaves(history: list[Record]) -> None:
    topics = Topics(number_offsets(history))
    with TemporaryDirectory() as name:
        export_now(topics, Path(name))
        rows = rows_of(Path(name), "transitions")
    assert as_published(rows) == model.net(operations(topics))
    assert len(rows) == len({row["id"] for row in rows})


@FEW
@given(histories())
def test_a_selection_leaves_the_rows_that_match(history: list[Record]) -> None:
    topics = Topics(number_offsets(history))
    with TemporaryDirectory() as name:
        export_now(topics, Path(name) / "all")
        rows = rows_of(Path(name) / "all", "transitions")
        times = sorted(row["event_time"] for row in rows) or [at(0)]
        media = [row["media"] for row in rows][:1]
        queues = [row["queue_id"] for row in rows if row["queue_id"]][:1]
        selection = Selection(times[len(times) // 3], times[-1], media, queues)
        export_now(topics, Path(name) / "some", selection)
        selected = rows_of(Path(name) / "some", "transitions")
    assert selected == [
        row
        for row in rows
        if times[len(times) // 3] <= row["event_time"] < times[-1]
        and (not media or row["media"] in media)
        and (not queues or row["queue_id"] in queues)
    ]


def export_now(topics: Topics, folder: Path, selection: Selection = EVERYTHING, **fields: Any) -> Manifest:
    """Export where no event loop runs."""
    return asyncio.run(export(topics, folder, selection, **fields))


async def test_a_transition_asserted_again_has_its_last_queue(tmp_path: Path) -> None:
    """It no longer belongs to the queue that was known before."""
    topics = Topics([call(0, "connected", 5)])
    (published,) = operations(topics)
    for op, queue in (("assert", "q1"), ("retract", "q1"), ("assert", "q2")):
        again = published | {"op": op, "context": {"queueId": queue}}
        topics.publish(LOG, 0, "c1", msgspec.json.encode(again))
    for queue in ("q1", "q2"):
        await export(topics, tmp_path / queue, Selection(queues=[queue]))
    assert rows_of(tmp_path / "q1", "transitions") == []
    (row,) = rows_of(tmp_path / "q2", "transitions")
    assert (row["id"], row["queue_id"], row["offset"]) == (published["id"], "q2", 5)


def test_rows_are_in_files_of_their_day_in_order_of_offset(tmp_path: Path) -> None:
    topics = Topics(traffic(600))
    manifest = export_now(topics, tmp_path, tables=TABLES)
    for table in TABLES:
        files = sorted(tmp_path.glob(f"{table}/*/*.jsonl"))
        assert len(files) > 2 or table == "dead-letters"
        for path in files:
            rows = [msgspec.json.decode(line, type=ROWS[table]) for line in path.read_bytes().splitlines()]
            assert {f"day={getattr(row, TIMES[table])[:10]}" for row in rows} == {path.parent.name}
            assert {f"partition-{row.partition:05}.jsonl" for row in rows} == {path.name}
            offsets = [row.offset for row in rows]
            assert offsets == sorted(offsets)
    named = {file.path: (file.rows, file.bytes) for part in manifest.parts for file in part.files or ()}
    assert named == {
        name: (content.count(b"\n"), len(content)) for name, content in files_of(tmp_path).items() if name != MANIFEST
    }


@pytest.mark.parametrize("file_format", FORMATS)
async def test_the_same_cut_gives_the_same_bytes(tmp_path: Path, file_format: FileFormat) -> None:
    """Whatever the workers publish after the offsets were committed."""
    history = traffic(300)
    before, later = Topics(history), Topics(history)
    for record in traffic(60, conversations=7)[:30]:
        later.publish_transitions(record.partition, [replace(record, offset=10_000 + record.offset)])
    await export(before, tmp_path / "before", format=file_format, tables=["transitions", "log"])
    await export(later, tmp_path / "later", format=file_format, tables=["transitions", "log"])
    assert len(operations(later)) > len(operations(before))
    files = [files_of(tmp_path / name) for name in ("before", "later")]
    del files[0][MANIFEST], files[1][MANIFEST]
    assert files[0] == files[1]
    assert files[0]


async def test_a_state_is_the_newest_before_the_cut(tmp_path: Path) -> None:
    topics = Topics([call(0, "alerting", 1), call(5, "connected", 9, "c2")])
    newer = Topics([call(0, "alerting", 1), call(6, "connected", 5)]).logs[SETTINGS.state_topic, 0][-1]
    topics.publish(SETTINGS.state_topic, 0, newer.key, newer.value)
    await export(topics, tmp_path, tables=["states"])
    states = {row["conversation_id"]: row["state"] for row in rows_of(tmp_path, "states")}
    assert states == {"c1": "alerting", "c2": "connected"}
    topics.publish(SETTINGS.state_topic, 0, "c2", None)
    topics.committed[0] = Committed(7, "")
    await export(topics, tmp_path / "later", tables=["states"])
    states = {row["conversation_id"]: row["state"] for row in rows_of(tmp_path / "later", "states")}
    assert states == {"c1": "connected"}


async def test_a_state_has_a_row_for_each_communication(tmp_path: Path) -> None:
    history = traffic(400)
    topics = Topics(history)
    await export(topics, tmp_path, tables=["states"])
    states = {
        record.key: msgspec.json.decode(record.value or b"")
        for (topic, _), log in topics.logs.items()
        if topic == SETTINGS.state_topic
        for record in log
    }
    rows = rows_of(tmp_path, "states")
    expected = [
        (state["conversationId"], participant["participantId"], leg.get("communicationId"), leg.get("state"),
         participant["details"].get("queueId"), leg["details"].get("held"), leg["details"].get("wrapupCode"))
        for state in states.values()
        for participant in state["participants"]
        for leg in participant.get("communications", [])
        if leg["details"].get("wrapupCode") or not participant["details"].get("wrapupCode")
    ]  # fmt: skip
    columns = ("conversation_id", "participant_id", "communication_id", "state", "queue_id", "held", "wrapup_code")
    assert set(expected) <= {tuple(row[name] for name in columns) for row in rows}
    assert len(expected) > 100


async def test_dead_letters_have_reasons_and_no_payload(tmp_path: Path) -> None:
    topics = Topics([call(0, "connected", 5), rubbish(1), rubbish(2, value=b"\xff")])
    await export(topics, tmp_path, tables=["dead-letters"])
    rows = rows_of(tmp_path, "dead-letters")
    assert [(row["reason"], row["source_offset"]) for row in rows] == [("bad_json", 1), ("bad_json", 2)]
    assert b"rubbish" not in b"".join(files_of(tmp_path).values())


async def test_counts_are_those_of_verify(tmp_path: Path) -> None:
    history = traffic(600, partitions=1)
    await export(Topics(history), tmp_path, tables=TABLES)
    comparison = publish(history).verify().comparison
    assert len(rows_of(tmp_path, "transitions")) == comparison.transitions > 300
    conversations = {row["conversation_id"] for row in rows_of(tmp_path, "states")}
    assert len(conversations) == comparison.conversations == comparison.equal


@pytest.mark.parametrize("table", TABLES)
async def test_formats_have_the_same_rows(tmp_path: Path, table: TableName) -> None:
    topics = Topics(traffic(300))
    for file_format in FORMATS:
        await export(topics, tmp_path / file_format, format=file_format, tables=[table])
    rows = rows_of(tmp_path / "jsonl", table)
    files = [sorted((tmp_path / name).glob(f"{table}/*/*.{name}")) for name in ("csv", "parquet")]
    assert list(rows[0]) == list(ROWS[table].__struct_fields__)
    cells = [dict(row) for path in files[0] for row in csv.DictReader(io.StringIO(path.read_text()))]
    assert cells == [{name: to_cell(value) for name, value in row.items()} for row in rows]
    columns = [dict(row) for path in files[1] for row in parquet.read_table(path, partitioning=None).to_pylist()]
    assert [{name: to_published(value) for name, value in row.items()} for row in columns] == rows


def to_cell(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def to_published(value: Any) -> Any:
    if isinstance(value, datetime):
        assert value.utcoffset() == timedelta()
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def test_a_killed_export_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Killed after each slice that it read and before each file that it finished, every time again."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.tools.killed_export", tmp_path], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    killed = files_of(tmp_path / "killed")
    assert killed == files_of(tmp_path / "whole")
    assert int(ended.stdout) > 10
    assert not [name for name in killed if Path(name).name.startswith(".")]


async def test_an_export_goes_on_only_with_the_same_request(tmp_path: Path) -> None:
    topics = Topics(traffic(30))
    await export(topics, tmp_path)
    before = files_of(tmp_path)
    topics.consume(0, traffic(60, partitions=1))
    await export(topics, tmp_path)
    assert files_of(tmp_path) == before, "it is complete"
    with pytest.raises(DirectoryError, match="holds an export that differs in format, media:"):
        await export(topics, tmp_path, Selection(media=["call"]), format="csv")
    with pytest.raises(DirectoryError, match="is not empty"):
        await export(topics, tmp_path / "transitions")
    with ExportDirectory(tmp_path), pytest.raises(DirectoryError, match="another export writes to"):
        await export(topics, tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(DirectoryError, match=f"{MANIFEST} in .* is not of this version"):
        await export(topics, tmp_path)


async def test_a_relative_time_means_that_of_the_start(tmp_path: Path) -> None:
    topics = Topics([call(0, "connected", 5), call(1, "connected", 500, "c2")])
    request = request_of(topics, since="7d")
    parts = await find_parts(SETTINGS, topics, request.tables)
    with ExportDirectory(tmp_path) as directory:
        directory.save(Manifest(request, Selection(since=at(100)), parts))
    await export(topics, tmp_path, Selection(since=at(1_000)), since="7d")
    assert [row["conversation_id"] for row in rows_of(tmp_path, "transitions")] == ["c2"]


async def test_what_retention_deleted_meanwhile_is_an_error(tmp_path: Path) -> None:
    topics = Topics(traffic(60, partitions=1))
    request = request_of(topics)
    parts = await find_parts(SETTINGS, topics, request.tables)
    topics.begins[LOG, 0] = 3
    with ExportDirectory(tmp_path) as directory, pytest.raises(ConfigurationError, match="no longer holds all"):
        await Exporter(topics, directory, quiet).run(Manifest(request, Selection(), parts))
    await export(topics, tmp_path / "another")
    assert rows_of(tmp_path / "another", "transitions")


@pytest.mark.parametrize(
    ("table", "value"),
    [("transitions", b"{}"), ("log", b"\xff"), ("states", b"[]"), ("transitions", None), ("states", b'{"schema":2}')],
)
async def test_a_foreign_record_is_an_error_with_its_offset(tmp_path: Path, table: TableName, value: bytes) -> None:
    topics = Topics([call(0, "connected", 5)])
    topic = topic_of(SETTINGS, table)
    topics.publish(topic, 0, "c1", value)
    with pytest.raises(ConfigurationError, match=f"offset {topics.logs[topic, 0][-1].offset} of partition 0"):
        await export(topics, tmp_path, tables=[table])


@pytest.mark.parametrize("changed", [{"schema": 2}, {"eventTime": "../../../2026"}, {"eventTime": ""}, {"id": "x"}])
def test_a_transition_of_another_form_is_an_error(tmp_path: Path, changed: dict[str, Any]) -> None:
    topics = Topics([call(0, "connected", 5)])
    (published,) = operations(topics)
    topics.publish(LOG, 0, "c1", msgspec.json.encode(published | changed))
    with pytest.raises(ConfigurationError, match="another version"):
        export_now(topics, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


async def test_a_group_without_offsets_has_nothing_to_export(tmp_path: Path) -> None:
    topics = Topics([call(0, "connected", 5)])
    topics.committed.clear()
    with pytest.raises(ConfigurationError, match="has committed nothing"):
        await export(topics, tmp_path)
    assert files_of(tmp_path) == {}


def test_files_are_the_users_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    topics = Topics([call(0, "connected", 5)])
    staged: list[int] = []
    topics.on_slice = lambda: staged.extend(path.stat().st_mode & 0o077 for path in tmp_path.glob(".*"))
    export_now(topics, tmp_path)
    assert set(staged) == {0}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(folders) == 2
    assert {path.stat().st_mode & 0o077 for path in folders} == {0}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_is_not_finished_has_no_name(tmp_path: Path, file_format: FileFormat) -> None:
    topics = Topics([call(0, "connected", 5)])
    export_now(topics, tmp_path / "whole")
    (part,) = Manifest(request_of(topics), EVERYTHING, asyncio.run(find_parts(SETTINGS, topics, ["transitions"]))).parts
    (line,) = (tmp_path / "whole/transitions/day=2026-01-01/partition-00000.jsonl").read_bytes().splitlines()
    with ExportDirectory(tmp_path / "stopped") as directory:
        writing = directory.write(part, file_format, ROWS["transitions"], "2026-01-01", iter([line]))
        assert next(writing) is None
        writing.close()
    assert files_of(tmp_path / "stopped") == {}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_selected_by_its_time_and_what_it_has(tmp_path: Path, table: TableName) -> None:
    topics = Topics(traffic(400))
    export_now(topics, tmp_path / "all", tables=[table])
    rows = rows_of(tmp_path / "all", table)
    times = sorted(row[TIMES[table]] for row in rows)
    since, until = times[len(times) // 4], times[3 * len(times) // 4]
    media = [] if table == "dead-letters" else ["call", "email"]
    export_now(topics, tmp_path / "some", Selection(since, until, media), tables=[table])
    expected = [row for row in rows if since <= row[TIMES[table]] < until and (not media or row["media"] in media)]
    assert rows_of(tmp_path / "some", table) == expected
    assert 0 < len(expected) < len(rows)
