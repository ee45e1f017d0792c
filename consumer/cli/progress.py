"""Progress bars and warnings on stderr."""

import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from consumer.cli.output import write_line

_WIDTH_MIN, _WIDTH_MAX = 5, 36
_BESIDE = 26
"""Columns of what stands beside label and bar: brackets, percentage and the time that is left."""


def warn(sentence: str) -> None:
    """Print a warning: something needs attention but does not stop the command."""
    write_line(f"warning: {sentence}", err=True)


@contextmanager
def progress(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of `length` steps, None if their number is not known; yields a function that adds steps.

    If stderr is not a terminal it shows nothing, so that pipes and logs stay clean.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    endless: Iterable[Any] | None = itertools.count() if length is None else None
    steps = None if length is None else max(length, 1)
    columns = shutil.get_terminal_size().columns
    width = max(_WIDTH_MIN, min(_WIDTH_MAX, columns - len(label) - _BESIDE))
    with click.progressbar(endless, length=steps, label=label, width=width, file=sys.stderr) as bar:
        yield bar.update
