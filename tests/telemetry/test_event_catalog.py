"""The declared log events are those that the code logs, with their levels and fields."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from consumer.telemetry.event_catalog import LOG_EVENTS

PACKAGE = Path(__file__).parents[2] / "consumer"
EVENT = re.compile(r"(breaker|consumer|group|lane|library|loop|oauth|query|tls)\.[a-z_]+")
DECLARED = {event.name: event for event in LOG_EVENTS}


def nodes() -> Iterator[ast.AST]:
    """All code of the service but the declarations."""
    for file in PACKAGE.rglob("*.py"):
        if file.name != "event_catalog.py":
            yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def is_event(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or not EVENT.fullmatch(node.value):
        return False
    return not (PACKAGE.parent / node.value.replace(".", "/")).is_dir()  # a package of ours


def test_declared_events_are_those_in_the_code() -> None:
    found = {node.value for node in nodes() if isinstance(node, ast.Constant) and is_event(node)}
    assert found == DECLARED.keys()
    assert [event.name for event in LOG_EVENTS] == sorted(DECLARED)


def test_calls_log_the_declared_fields_and_level() -> None:
    """Where a call names its event: a call may leave fields out, and what it spreads with `**` is not seen."""
    fields: dict[str, set[str]] = defaultdict(set)
    for node in nodes():
        match node:
            case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str(name)), *_]) if (
                name in DECLARED
            ):
                assert method == DECLARED[name].level or method not in {"debug", "info", "warning", "error"}, name
                fields[name] |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
    assert len(fields) > len(DECLARED) / 2
    for name, named in fields.items():
        assert named <= set(DECLARED[name].fields), name


def test_meanings_are_sentences() -> None:
    assert [event.name for event in LOG_EVENTS if not event.meaning.endswith(".")] == []
