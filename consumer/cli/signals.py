"""The signals that ask a command to stop, and at the second time force it.

A closed terminal or connection sends SIGHUP, often more than once, and some supervisors send it right after SIGTERM. So
it asks, as SIGTERM does, but never forces. A command started with `nohup` ignores it.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from consumer.cli.exit_codes import TERMINATED
from consumer.cli.output import write_line

T = TypeVar("T")


def on_signals(numbers: Iterable[signal.Signals], ask: Callable[[], Any], force: Callable[[], Any]) -> None:
    """Have the running loop call `ask` at the first of these signals and `force` at every later one but SIGHUP."""
    asked = False

    def handle(number: signal.Signals) -> None:
        nonlocal asked
        if not asked:
            asked = True
            ask()
        elif number != signal.SIGHUP:
            force()

    loop = asyncio.get_running_loop()
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, handle, number)


def run_until_terminated(work: Coroutine[Any, Any, T]) -> T:
    """Run the work and return its result. SIGTERM, SIGHUP and Ctrl-C cancel it, so that it can abort a transaction."""

    async def run() -> T:
        task = asyncio.ensure_future(work)
        on_signals((signal.SIGTERM, signal.SIGHUP), task.cancel, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # the terminal may be gone
            write_line("terminated: what was committed stays, and the same command continues from there", err=True)
        sys.exit(TERMINATED)
