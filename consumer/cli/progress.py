"""Progress bars and warnings on stderr."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from consumer.cli.output import write_line


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
    with click.progressbar(endless, length=steps, label=label, file=sys.stderr) as bar:
        yield bar.update
