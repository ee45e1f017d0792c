"""All documents of the repository, and what can be found in them."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Final

import click

from consumer.__main__ import main

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "deploy" / name for name in ("README.md", "RUNBOOK.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAM: Final = "conversation-consumer"


def name_of(page: Path) -> str:
    """The path of a page within the repository."""
    return page.relative_to(ROOT).as_posix()


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def quoted(page: Path) -> set[str]:
    """What stands as code within the text."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)))


def console_lines(page: Path) -> list[str]:
    """The commands of all console blocks, without their comments."""
    blocks = re.findall(r"^```console\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+#\s.*", "", line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def calls(page: Path) -> list[str]:
    """The arguments of each call of the program, in console blocks and within the text."""
    inline = [words for words in quoted(page) if words.startswith(f"{PROGRAM} ")]
    return [call.removeprefix(f"{PROGRAM} ") for call in (*console_lines(page), *inline) if call.startswith(PROGRAM)]


def parse(call: str) -> None:
    """Have the program take the arguments of a call. Raises what click raises where it does not."""
    words = shlex.split(call)
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(call, words)


def anchors(page: Path) -> set[str]:
    """What `#` can lead to in a page, as GitHub derives it from headings."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: Path, header: str) -> list[list[str]]:
    """The rows of the table with this header, as cells."""
    lines = text_of(page).splitlines()
    rows = lines[lines.index(header) + 2 :]
    rows = rows[: next((index for index, line in enumerate(rows) if not line.startswith("|")), len(rows))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
