"""A budget of the event loop's time for the work that clients cause, so that the lanes get the rest."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self


class Spent:
    """The loop's time that a piece of work took, in seconds. As a context manager it adds the time of its block."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began_s = 0.0

    def __enter__(self) -> Self:
        self._began_s = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began_s


class LoopBudget:
    """Limits a kind of work to a share of the loop's time: one piece at a time, with a rest after it."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._turn = asyncio.Lock()
        self._rested_s = 0.0

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[Spent, None]:
        """Wait for the turn; the caller adds to the yielded `Spent` what the work took."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested_s - time.monotonic()))
            spent = Spent()
            try:
                yield spent
            finally:
                self._rested_s = time.monotonic() + spent.seconds / self._share

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None, None]:
        """Wait for the turn, and count the time of the block, which must not await."""
        async with self.acquire() as spent:
            with spent:
                yield
