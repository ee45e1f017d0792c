"""`export` without a broker: wrong options, folders that it does not take, and what it prints in the end."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consumer.cli.exit_codes import FAILED, OK, USAGE
from consumer.cli.export import export
from consumer.tools.export_files import MANIFEST
from consumer.tools.export_rows import Selection
from tests.strategies import at
from tests.tools import exports
from tests.tools.exports import Topics
from tests.worker.scenes import call, rubbish

TABLES = ["transitions", "dead-letters"]


def run(*arguments: str | Path, **environ: str) -> Result:
    return CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1", **environ}).invoke(export, list(map(str, arguments)))


def export_tables(folder: Path) -> None:
    """The export that `--format jsonl --since` with the time below asks for, for both tables."""
    topics = Topics([call(0, "connected", 5), call(1, "disconnected", 9), rubbish(2)])
    selection = Selection(since=at(7))
    asyncio.run(exports.export(topics, folder, selection, format="jsonl", tables=TABLES, since=at(7)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'DIRECTORY'"),
        (["out"], "Missing option '--format'"),
        (["out", "--format", "xml"], "'xml' is not one of 'parquet', 'csv', 'jsonl'"),
        (["out", "--format", "csv", "--since", "soon"], "'soon' is not a time such as"),
        (["out", "--format", "csv", "--media", "fax"], "'fax' is not one of"),
        (
            ["out", "--format", "csv", "--table", "dead-letters", "--queue", "q1"],
            "--media and --queue cannot select from dead-letters",
        ),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == USAGE
    assert message in " ".join(result.stderr.split())


def test_a_folder_with_something_else_is_a_wrong_option(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    result = run(tmp_path, "--format", "csv")
    assert result.exit_code == USAGE
    assert "is not empty, and holds no export to go on with" in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(tmp_path / "file" / "below", "--format", "csv")
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert "Not a directory" in result.stderr


def test_an_export_that_is_complete_says_what_it_has(tmp_path: Path) -> None:
    export_tables(tmp_path)
    options = ["--format", "jsonl", "--since", at(7), "--table", "transitions", "--table", "dead-letters"]
    result = run(tmp_path, *options)
    assert result.exit_code == OK, result.stderr
    files = {path.parts[-3]: path.stat().st_size for path in tmp_path.glob("*/*/*.jsonl")}
    assert [line.split() for line in result.stdout.splitlines()[:3]] == [
        ["table", "rows", "files", "bytes"],
        ["transitions", "1", "1", str(files["transitions"])],
        ["dead-letters", "1", "1", str(files["dead-letters"])],
    ]
    assert result.stdout.splitlines()[3] == f"complete: {tmp_path / MANIFEST} has the offsets and all files"
    described = [json.loads(line) for line in run(tmp_path, *options, "--json").stdout.splitlines()]
    assert {file["path"].split("/")[0]: (file["rows"], file["bytes"]) for file in described} == {
        table: (1, size) for table, size in files.items()
    }


def test_another_request_does_not_go_on(tmp_path: Path) -> None:
    export_tables(tmp_path)
    result = run(tmp_path, "--format", "jsonl", "--table", "transitions", CC_GROUP_ID="another")
    assert result.exit_code == USAGE
    assert "differs in tables, since, group_id: name another folder" in " ".join(result.stderr.split())


def test_a_full_disk_is_a_failure_that_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("consumer.cli.export.export_topics", fail)
    result = run(tmp_path, "--format", "csv")
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert "disk is full: the same command goes on from there" in result.stderr


def test_parquet_without_its_library_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run(tmp_path / "out", "--format", "parquet")
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert "install conversation-consumer[parquet]" in result.stderr
    assert not list(tmp_path.iterdir())
