"""What documents name exists, their links lead somewhere, and their commands are accepted."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from consumer.cli import exit_codes
from consumer.environment import describe_all
from consumer.telemetry.event_catalog import LOG_EVENTS
from consumer.telemetry.metrics import Metrics
from consumer.tools.export_rows import ROWS
from tests.docs.pages import PAGES, PROGRAM, ROOT, anchors, calls, console_lines, name_of, parse, quoted, text_of

SETTINGS = {name for name, _, _ in describe_all()}
METRICS = {metric.name for metric in Metrics().describe_all()}
SAMPLES = {f"{name}{suffix}" for name in METRICS for suffix in ("", "_bucket", "_count", "_sum")}
COLUMNS = {name for row in ROWS.values() for name in row.__struct_fields__}
EVENTS = {event.name for event in LOG_EVENTS}
EVENT = re.compile(rf"(?:{'|'.join(sorted({name.partition('.')[0] for name in EVENTS}))})\.[a-z_]+")
EXIT_CODES = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
ALERTS = set(
    re.findall(r"alert: (\w+)", (ROOT / "deploy/components/monitoring/rules/alerts.yaml").read_text(encoding="utf-8"))
)
TARGETS = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
API_PATHS = {
    re.sub(r"\{\w+\}", "ID", path)
    for file in (ROOT / "consumer").rglob("openapi.json")
    for path in json.loads(file.read_text(encoding="utf-8"))["paths"]
}
OTHER_PROGRAMS = {
    ".venv/bin/pip",
    "_CONVERSATION_CONSUMER_COMPLETE=fish_source",
    "curl",
    "docker",
    "echo",
    "export",
    "java",
    "kafka-consumer-groups",
    "kubectl",
    "make",
    "oras",
    "pip",
    "psql",
    "python3",
}

for_each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@for_each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), target
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_linked() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", text_of(page))
        if not target.startswith("http")
    }
    assert [name_of(page) for page in PAGES if page not in linked] == ["README.md"]


def current_text(page: Path) -> str:
    """The text of a page, but for what the changelog says is gone or has another name."""
    text = text_of(page)
    if page.name != "CHANGELOG.md":
        return text
    return re.sub(r"### (?:Removed|Renamed)\n.*?(?=\n### )", "", text, flags=re.DOTALL)


@for_each_page
def test_settings_exist(page: Path) -> None:
    named = set(re.findall(r"\bCC_[A-Z_]*[A-Z]", current_text(page)))
    assert {name for name in named if name.removesuffix("_FILE") not in SETTINGS and name not in SETTINGS} == set()


@for_each_page
def test_metrics_exist(page: Path) -> None:
    assert set(re.findall(r"(?<![:\w])conversation_[a-z_]*[a-z]", current_text(page))) <= SAMPLES | COLUMNS


@for_each_page
def test_log_events_exist(page: Path) -> None:
    assert {name for name in quoted(page) if EVENT.fullmatch(name)} <= EVENTS


@for_each_page
def test_alerts_exist(page: Path) -> None:
    assert {name for name in quoted(page) if re.fullmatch(r"Conversation[A-Z]\w+", name)} <= ALERTS


@for_each_page
def test_exit_codes_exist(page: Path) -> None:
    assert {int(code) for code in re.findall(r"\b[Ee]xit code (\d+)", text_of(page))} <= EXIT_CODES


@for_each_page
def test_paths_exist(page: Path) -> None:
    """Files and folders of the repository, and tests in them. Pages of deploy/ name files from there as well."""
    for name in quoted(page):
        path, _, test = name.partition("::")
        if re.fullmatch(r"(?:consumer|deploy|docs|schemas|tests)/[\w./-]*", path):
            assert (ROOT / path).exists(), name
            assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), name


@for_each_page
def test_make_targets_exist(page: Path) -> None:
    lines = [line for line in (*console_lines(page), *quoted(page)) if line.startswith("make ")]
    named = {word for line in lines for word in shlex.split(line)[1:] if "=" not in word}
    assert named <= TARGETS


@for_each_page
def test_modules_exist(page: Path) -> None:
    """Those that are run with `python -m`."""
    for module in re.findall(r"python -m ([\w.]+)", text_of(page)):
        assert importlib.util.find_spec(module), module


@for_each_page
def test_commands_are_accepted(page: Path) -> None:
    for call in calls(page):
        parse(call)
    for line in console_lines(page):
        assert line.split()[0] in {PROGRAM, *OTHER_PROGRAMS}, line
    for line in (*console_lines(page), *quoted(page)):
        for path in re.findall(r" (deploy/[\w./-]+)", line):
            assert (ROOT / path).exists(), line


@for_each_page
def test_paths_of_the_query_port_exist(page: Path) -> None:
    assert {path.rstrip("/") for path in re.findall(r"localhost:8081/api/v1(/[\w./]*)", text_of(page))} <= API_PATHS
