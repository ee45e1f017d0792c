"""The signals that ask a command to stop.

A closed terminal or connection sends SIGHUP, often more than once, and some supervisors send it right after SIGTERM: it
asks, like SIGTERM, but never presses. A command started with `nohup` ignores it.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from typing import Any


def on_signals(numbers: Iterable[signal.Signals], ask: Callable[[], Any], press: Callable[[], Any]) -> None:
    """Have the running loop call `ask` at the first of these signals, and `press` at each later one but SIGHUP."""
    asked = False

    def handle(number: signal.Signals) -> None:
        nonlocal asked
        if not asked:
            asked = True
            ask()
        elif number != signal.SIGHUP:
            press()

    loop = asyncio.get_running_loop()
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, handle, number)
