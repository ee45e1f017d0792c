"""How commands that write and take their time end by SIGTERM and SIGHUP."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from consumer.cli.exits import TERMINATED
from consumer.cli.signals import on_signals

T = TypeVar("T")


def run_until_terminated(work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. SIGTERM and SIGHUP, as Ctrl-C, cancel it: it aborts the transaction that it has open."""

    async def run() -> T:
        task = asyncio.ensure_future(work)
        on_signals((signal.SIGTERM, signal.SIGHUP), task.cancel, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # the terminal may be gone
            click.echo("terminated: what was committed stays, and the same command goes on from there", err=True)
        sys.exit(TERMINATED)
