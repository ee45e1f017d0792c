"""What commands that take their time share: a bar on a terminal, an end by signal, columns, and times as options."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import click

from consumer.cli.exits import exit_on_world_error
from consumer.cli.generate import INTERRUPTED
from consumer.core import times

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
T = TypeVar("T")


class Interrupted(Exception):
    """A signal asked for the end, and everything was put away."""


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. SIGTERM and SIGINT cancel it, so that it can abort what it has open: Interrupted."""

    async def _run() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(_run())
    except asyncio.CancelledError as error:
        raise Interrupted from error


@contextlib.contextmanager
def ending_told() -> Iterator[None]:
    """End the process with its exit code where the world or a signal ends the work."""
    try:
        with exit_on_world_error():
            yield
    except Interrupted:
        click.echo("interrupted: what was committed stays, and the same command goes on from there", err=True)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def bar(label: str, *, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """What draws a bar on standard error, told how much is done and of how much; draws nothing but on a terminal."""
    if hidden or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as drawn:

        def told(done: int, total: int) -> None:
            drawn.length = max(total, 1)
            drawn.update(done - drawn.pos)

        yield told


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


class Time(click.ParamType):  # type: ignore[type-arg]  # older versions of click know no argument
    """A time in ISO 8601, given in epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `ParamType.convert`."""
        parsed = times.parse(value) if isinstance(value, str) else value
        if parsed is None:
            self.fail(f"{value!r} is no time such as 2026-01-31T09:00:00Z", param, ctx)
        return int(parsed)
