"""The page of all exit codes."""

import re
from collections import defaultdict

import click

from consumer.cli import exit_codes
from docs.generate.cli import commands
from docs.generate.docstrings import attribute_docstrings
from docs.generate.markdown import code, document, table

_INTRO = """
The codes follow `sysexits.h`. After 69 starting again may help, after 78 it does not. A supervisor may restart a worker
after either: a start that fails changes nothing. Any command may end with 2 or 70.
"""


def page() -> str:
    """`exit-codes.md`."""
    named = defaultdict(list)
    for name, command in commands():
        for number in _find_codes(command):
            named[number].append(name)
    meanings = attribute_docstrings(exit_codes)
    codes = sorted((vars(exit_codes)[name], *meanings[name].split(". ", 1)) for name in meanings)
    rows = [
        (str(number), meaning.removesuffix("."), "".join(remedy), code(*named[number]))
        for number, meaning, *remedy in codes
    ]
    return document("Exit codes", _INTRO, table(("code", "meaning", "what to do", "named by the help of"), rows))


def _find_codes(command: click.Command) -> list[int]:
    """The exit codes that a command's help names."""
    _, _, text = (command.help or "").partition("Exit codes:")
    return [int(number) for number in re.findall(r"(?:^|;)\s*(\d+)\b", text)]
