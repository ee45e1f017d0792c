"""The page of all commands."""

from collections.abc import Iterator

import click

from consumer.__main__ import main
from docs.generate.markdown import document

PROGRAM = "conversation-consumer"
_WIDTH = 100
_INTRO = """
Data goes to standard output; with `--json` it is one JSON object per line. Messages and progress bars go to standard
error. Bars and colours appear on terminals only, and no colours where `NO_COLOR` is set. An error is one line with the
remedy. [Exit codes](exit-codes.md) are the same for all commands.

Every command that connects takes the brokers, the group and a file of settings as options: an option goes before the
environment, and that before the file. A time is ISO 8601, `1h` (ago), or a day (`today`, `yesterday`, a date) with a
time and a zone (`14:00 Europe/Berlin`); without a zone it is UTC, and a message says so.

What follows is what `--help` prints.
"""


def page() -> str:
    """`cli.md`."""
    parts = [f"## {' '.join((PROGRAM, *path))}\n\n```text\n{_help(command, path)}\n```" for path, command in walk(main)]
    return document("Commands", _INTRO, *parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with the words that call it."""
    for path, command in walk(main):
        if not isinstance(command, click.Group):
            yield " ".join(path), command


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it, each with the words that lead there."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from walk(below, (*path, name))


def _help(command: click.Command, path: tuple[str, ...]) -> str:
    context = click.Context(
        command,
        info_name=" ".join((PROGRAM, *path)),
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        **main.context_settings,
    )
    return command.get_help(context)
