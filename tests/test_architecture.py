"""Who may import whom: layers and homes of libraries by import-linter, the core's purity by reading its imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPURE = {"asyncio", "time", "random", "os", "logging", "socket", "threading", "secrets", "subprocess"}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Pairs of a file's path and a module that it imports anywhere, the latter with all its dots."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
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
