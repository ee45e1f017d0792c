"""How commands that write and take their time end by SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from consumer.cli.exits import TERMINATED

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
