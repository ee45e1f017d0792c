"""What commands that write and take their time share: an end by SIGTERM, and times as options."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from consumer.cli.exits import TERMINATED
from consumer.core import times

T = TypeVar("T")


def run_until_terminated(work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. SIGTERM, as Ctrl-C, cancels it, so that it aborts the transaction that it has open."""

    async def run() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        click.echo("terminated: what was committed stays, and the same command goes on from there", err=True)
        sys.exit(TERMINATED)


class Time(click.ParamType):  # type: ignore[type-arg]  # older versions of click know no argument
    """A time in ISO 8601, given in epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `ParamType.convert`."""
        parsed = times.parse(value) if isinstance(value, str) else value
        if parsed is None:
            self.fail(f"{value!r} is no time such as 2026-01-31T09:00:00Z", param, ctx)
        return int(parsed)
