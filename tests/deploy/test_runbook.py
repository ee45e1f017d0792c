"""The runbook: a section for each alert, and nothing in it that does not exist."""

import ast
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from consumer.__main__ import main
from consumer.core.step import DEAD_LETTER_REASONS
from consumer.runtime.settings import described
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
"""What stands behind the program's name, in the text and in the blocks of commands."""


def log_events() -> set[str]:
    """Every constant in the service's code that has the form of an event's name."""
    return {
        node.value
        for file in (ROOT / "consumer").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"(consumer|lane|breaker|group|loop|library)\.[a-z_]+", node.value)
    }


def finding_names() -> set[str]:
    """The names that checks give their findings, wherever these are made."""
    return {
        str(node.args[0].value)
        for file in (ROOT / "consumer").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        if isinstance(node.args[0], ast.Constant)
    }


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert SECTIONS.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_all_its_parts_and_the_remedy_first(name: str) -> None:
    assert re.findall(r"^### (.*)$", SECTIONS[name], re.MULTILINE) == PARTS
    assert "```promql" in SECTIONS[name].partition("### Diagnosis")[2]
    assert re.search(r"### What to do\n\n1\. ", SECTIONS[name])


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_a_query_asks_for_what_the_service_exports(name: str, query: str) -> None:
    assert problems(query, RECORDED) == [], name


def test_every_setting_named_exists() -> None:
    assert set(re.findall(r"CC_[A-Z_]*[A-Z]", RUNBOOK)) <= {name for name, _, _ in described()}


def test_every_log_event_named_exists() -> None:
    named = set(re.findall(r"\b((?:consumer|lane|breaker|group|loop|library)\.[a-z_]+)", RUNBOOK.replace("\\.", ".")))
    assert {"lane.failed", "consumer.failed", "breaker.opened"} <= named <= log_events()


def test_every_panel_named_exists() -> None:
    titles = {panel.title for panel in PANELS} | {"Pipeline", "Oldest live sessions"}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK))
    assert {each for each in named if not any(title.startswith(each) for title in titles)} == set()


def test_every_dead_letter_reason_has_a_remedy() -> None:
    section = SECTIONS["ConversationDeadLetters"]
    assert [reason for reason in DEAD_LETTER_REASONS if f"`{reason}`" not in section] == []


@pytest.mark.parametrize("line", CALLS)
def test_a_command_line_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line)
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


def test_every_finding_named_exists() -> None:
    lists = re.findall(r"findings? ((?:\*\w+\*(?:,? and |,? )?)+)", RUNBOOK)
    named = {name for each in lists for name in re.findall(r"\*(\w+)\*", each)}
    assert {"offsets", "membership"} <= named <= finding_names()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"localhost:8081/api/v1(/[\w/]*)", RUNBOOK))))
def test_a_path_of_the_query_port_is_documented(path: str) -> None:
    document = ROOT / "consumer" / "adapters" / "web" / "openapi.json"
    documented = json.loads(document.read_text(encoding="utf-8"))["paths"]
    assert path in {re.sub(r"\{\w+\}", "ID", each) for each in documented}


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\(#(\w+)\)", RUNBOOK))))
def test_a_link_leads_to_a_section(anchor: str) -> None:
    assert anchor in {name.lower() for name in SECTIONS}
