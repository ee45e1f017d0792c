"""Who may import whom: the layers by import-linter, the rest by reading the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPURE = {"asyncio", "time", "random", "os", "logging", "socket", "threading", "secrets", "subprocess"}
HOMES = {
    "aiohttp": ("consumer/adapters/",),
    "aiokafka": ("consumer/adapters/",),
    "click": ("consumer/cli/", "consumer/__main__.py"),
    "confluent_kafka": ("consumer/adapters/",),
    "prometheus_client": ("consumer/adapters/",),
    "structlog": ("consumer/adapters/",),
}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Pairs of a file's path and a module that it imports anywhere, the latter with all its dots."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, each.name) for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: a relative import hides its layer"
                yield name, node.module or ""


def test_the_layers_hold() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_core_and_the_schemas_are_pure() -> None:
    found = [*imports("consumer/core"), *imports("schemas")]
    assert found
    assert [pair for pair in found if pair[1].split(".")[0] in IMPURE] == []


def test_the_simulator_knows_the_record_and_nothing_else_of_the_consumer() -> None:
    allowed = ("consumer.simulator", "consumer.core.record")
    known = [pair for pair in imports("consumer/simulator") if pair[1].startswith("consumer")]
    assert [pair for pair in known if not pair[1].startswith(allowed)] == []


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_third_party_has_one_home(library: str) -> None:
    users = {name for name, module in imports("consumer") if module.split(".")[0] == library}
    assert [name for name in sorted(users) if not name.startswith(HOMES[library])] == []
