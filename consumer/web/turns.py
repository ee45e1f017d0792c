"""Who is answered next: turns at a steady rate, which peers get in rotation.

1. Requests that take precedence get their turn before all others.
2. Peers get turns in rotation, however many requests each has waiting. A peer's own requests keep their order.
3. No more than `running_max` turns are in use at a time.
4. A turn that a request does not wait for any more is dropped.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Final

BURST: Final = 8
"""Turns that are granted at once after a pause."""


class Turns:
    """Grants `per_s` turns a second, and at most `running_max` at a time."""

    def __init__(self, per_s: float, running_max: int) -> None:
        self._gap_s = 1 / per_s
        self._running_max = running_max
        self._running = 0
        self._last_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[bool, OrderedDict[str, deque[asyncio.Future[None]]]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }
        """By precedence and peer, the next peer first."""

    async def acquire(self, peer: str, *, takes_precedence: bool = False) -> None:
        """Wait for a turn of a peer; `release` gives it back. A caller that is cancelled has none."""
        turn = asyncio.get_running_loop().create_future()
        queues = self._waiting[takes_precedence]
        queues.setdefault(peer, deque()).append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was granted just before
                self.release()
            elif turn in queues.get(peer, ()):
                queues[peer].remove(turn)
                if not queues[peer]:
                    del queues[peer]
            raise

    def release(self) -> None:
        """Give a turn back."""
        self._running -= 1
        self._grant()

    def _grant(self) -> None:
        """Grant the turns that are due."""
        loop = asyncio.get_running_loop()
        while self._timer is None and self._running < self._running_max:
            queues = self._waiting[True] or self._waiting[False]
            if not queues:
                return
            now_s = loop.time()
            due_s = max(self._last_s + self._gap_s, now_s - BURST * self._gap_s)
            if due_s > now_s:
                self._timer = loop.call_at(due_s, self._wake)
                return
            peer, waiting = queues.popitem(last=False)
            turn = waiting.popleft()
            if waiting:
                queues[peer] = waiting  # behind all other peers
            if not turn.cancelled():  # else its caller is about to run
                turn.set_result(None)
                self._last_s = due_s
                self._running += 1

    def _wake(self) -> None:
        self._timer = None
        self._grant()
