"""The runbook: a section for each alert, and nothing in it that does not exist. tests/docs looks at more."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from consumer.__main__ import main
from consumer.core.reasons import DEAD_LETTER_REASONS
from consumer.engine.commit_stats import DECLINED_REASONS
from consumer.telemetry.event_catalog import LOG_EVENTS
from tests.deploy.promql import problems
from tests.deploy.test_dashboards import PANELS
from tests.deploy.test_rules import ALERTS, RECORDED

ROOT = Path(__file__).parent.parent.parent
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
PARTS = ["What to do", "Meaning", "Impact", "Diagnosis"]
QUERIES = [
    (name, query)
    for name, text in SECTIONS.items()
    for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    for query in block.splitlines()
]
CALLS = sorted(set(re.findall(r"(?:`|-- |^)conversation-consumer ([a-z][^`|\n]*)", RUNBOOK, re.MULTILINE)))
"""The arguments of the program, in the text and in blocks of commands."""


def check_names() -> set[str]:
    """The names of all checks in the service's code."""
    return {
        str(node.args[0].value)
        for file in (ROOT / "consumer").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "CheckResult"
        if isinstance(node.args[0], ast.Constant)
    }


def test_sections_and_alerts_correspond() -> None:
    assert SECTIONS.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_all_parts_and_the_remedy_first(name: str) -> None:
    assert re.findall(r"^### (.*)$", SECTIONS[name], re.MULTILINE) == PARTS
    assert "```promql" in SECTIONS[name].partition("### Diagnosis")[2]
    assert re.search(r"### What to do\n\n1\. ", SECTIONS[name])


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_a_query_names_exported_metrics(name: str, query: str) -> None:
    assert problems(query, RECORDED) == [], name


def test_every_log_event_named_exists() -> None:
    named = set(re.findall(r"\b((?:consumer|lane|breaker|group|loop|library)\.[a-z_]+)", RUNBOOK.replace("\\.", ".")))
    assert {"lane.failed", "consumer.failed", "breaker.opened"} <= named <= {event.name for event in LOG_EVENTS}


def test_every_panel_named_exists() -> None:
    titles = {panel.title for panel in PANELS} | {"Pipeline", "Oldest live sessions"}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK))
    assert {name for name in named if not any(title.startswith(name) for title in titles)} == set()


@pytest.mark.parametrize(
    ("name", "reasons"),
    [("ConversationDeadLetters", DEAD_LETTER_REASONS), ("ConversationEngineDeclines", DECLINED_REASONS)],
)
def test_every_reason_has_a_remedy_and_no_other_is_named(name: str, reasons: tuple[str, ...]) -> None:
    heads = re.findall(r"^   - ((?:`\w+`(?:, )?)+):", SECTIONS[name], re.MULTILINE)
    assert sorted(reason for head in heads for reason in re.findall(r"\w+", head)) == sorted(reasons)


@pytest.mark.parametrize("line", CALLS)
def test_a_command_line_is_valid(line: str) -> None:
    words = shlex.split(line)
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


def test_every_check_named_exists() -> None:
    lists = re.findall(r"checks? ((?:\*\w+\*(?:,? and |,? )?)+)", RUNBOOK)
    named = {name for names in lists for name in re.findall(r"\*(\w+)\*", names)}
    assert {"offsets", "membership", "retention"} <= named <= check_names()
