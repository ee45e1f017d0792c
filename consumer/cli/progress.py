"""A progress bar on stderr, and nothing where that is no terminal: output stays fit for pipes and logs."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click


def warn(sentence: str) -> None:
    """Tell something on stderr that needs attention but stops nothing."""
    click.echo(f"warning: {sentence}", err=True)


@contextmanager
def progress(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """A bar of so many steps, None if nobody knows; call what is given with the steps done since the last call."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    endless: Iterable[Any] | None = itertools.count() if length is None else None
    steps = None if length is None else max(length, 1)
    with click.progressbar(endless, length=steps, label=label, file=sys.stderr) as bar:
        yield bar.update
