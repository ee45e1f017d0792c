"""The README says what the code says."""

import re
import shlex
import sqlite3
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from consumer.__main__ import main
from consumer.adapters.kafka.permissions import grants
from consumer.adapters.monitoring.metrics import Metrics
from consumer.cli import exits
from consumer.core.decode import SNAPSHOT_TIME_HEADER
from consumer.core.record import Record
from consumer.core.step import Outcome
from consumer.runtime.dead_letters import REDRIVES_HEADER, dead_letter
from consumer.runtime.redrive import MARKER_HEADER
from consumer.runtime.settings import Settings, described
from schemas.transition import TRANSITION_SCHEMA, Transition

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def table(header: str) -> list[str]:
    """The rows of the table with this header."""
    lines = README.splitlines()
    rows = lines[lines.index(header) + 2 :]
    return rows[: next((index for index, line in enumerate(rows) if not line.startswith("|")), len(rows))]


def test_every_setting_is_listed_as_it_is() -> None:
    expected = [row(f"`{name}`", f"`{default}`" if default else "", told) for name, default, told in described()]
    assert table("| variable | default | meaning |") == expected


def test_every_metric_is_listed_as_it_is() -> None:
    expected = [
        row(
            f"`{each.name}`",
            each.type,
            ", ".join(f"`{label}`" for label in each.labels.split(", ") if label),
            each.documentation,
        )
        for each in Metrics().described()
    ]
    assert table("| metric | type | labels | meaning |") == expected


def test_the_headers_of_a_dead_letter_are_listed() -> None:
    record = Record("in", 0, 0, 0, b"k", b"v", ((SNAPSHOT_TIME_HEADER, b"1"), (REDRIVES_HEADER, b"1")))
    letter = dead_letter(record, Outcome("dead_lettered"), keep_payload=False, payload_bytes_max=10_000, version="1")
    assert set(re.findall(r"`(cc-[a-z-]+)`", README)) == {name for name, _ in letter.headers} | {MARKER_HEADER}


def test_every_permission_is_listed_as_it_is_needed() -> None:
    expected = [
        row(
            f"{each.resource} `{each.name}`{', as a prefix' if each.is_prefix else ''}",
            ", ".join(each.operations),
            ", ".join(f"`{setting}`" for setting in each.setting.split(", ")),
        )
        for each in grants(Settings(bootstrap_servers="b:1"))
    ]
    assert table("| resource | permissions | setting |") == expected


def test_every_exit_code_is_listed() -> None:
    codes = [int(line.split("|")[1]) for line in table("| exit code | meaning | what to do |")]
    assert codes == sorted(value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int))


@pytest.mark.parametrize("shell", re.findall(r"_CONVERSATION_CONSUMER_COMPLETE=(\w+)_source", README))
def test_a_shell_gets_its_script_for_completion(shell: str) -> None:
    name = "_CONVERSATION_CONSUMER_COMPLETE"
    told = CliRunner(env={name: f"{shell}_source"}).invoke(main, prog_name="conversation-consumer")
    assert told.exit_code == exits.OK
    assert f"{name}={shell}_complete" in told.stdout


@pytest.mark.parametrize("line", re.findall(r"^\$ conversation-consumer (.*)$", README, re.MULTILINE))
def test_a_command_line_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z0-9.-]*[a-z0-9])", README))))
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:schemas|consumer|tests)/[a-z_/.]*)`", README))))
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_setting_and_metric_in_the_text_exists() -> None:
    variables = {name for name, _, _ in described()}
    assert set(re.findall(r"CC_[A-Z_]+[A-Z]", README)) <= variables
    metrics = {each.name for each in Metrics().described()}
    assert set(re.findall(r"conversation_[a-z_]+", README)) <= metrics


def test_the_transition_shown_is_one_as_it_is_published() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    transition = msgspec.json.decode(shown, type=Transition)
    assert transition.schema == TRANSITION_SCHEMA
    assert msgspec.json.encode(transition) == msgspec.json.format(shown.encode(), indent=-1)


def test_the_query_keeps_what_the_corrections_shown_leave_standing() -> None:
    (query,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    shown = [line.replace("`", "").strip("| ").split(" | ") for line in table("| op | id | from | to | |")]
    log = [(op, transition_id) for op, transition_id, *_ in shown]
    standing = sorted({name for op, name in log if op == "assert"} - {name for op, name in log if op == "retract"})
    with sqlite3.connect(":memory:") as warehouse:
        warehouse.execute("CREATE TABLE transitions (op, id, kafka_offset)")
        warehouse.executemany("INSERT INTO transitions VALUES (?, ?, ?)", [(*each, n) for n, each in enumerate(log)])
        found = sorted(name for _, name, *_ in warehouse.execute(query))
        assert found == standing
        assert len(found) == 2
        warehouse.execute("INSERT INTO transitions VALUES ('assert', ?, 99)", [log[1][1]])
        assert len(list(warehouse.execute(query))) == 3, "a retracted one that was asserted again stands"
