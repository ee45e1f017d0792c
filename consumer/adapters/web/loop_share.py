"""Work for clients that must leave the loop to the lanes."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self


class Spent:
    """Seconds of the loop's time that a piece of work took; as a context manager it adds those of its block."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began_s = 0.0

    def __enter__(self) -> Self:
        self._began_s = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began_s


class LoopShare:
    """Keeps a kind of work to a share of the loop's time: one piece at a time, and a rest after each."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._turn = asyncio.Lock()
        self._rested_s = 0.0

    @asynccontextmanager
    async def piece(self) -> AsyncGenerator[Spent, None]:
        """Wait for the turn, then do the work; what it took has to be told to the `Spent` that comes."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested_s - time.monotonic()))
            spent = Spent()
            try:
                yield spent
            finally:
                self._rested_s = time.monotonic() + spent.seconds / self._share

    @asynccontextmanager
    async def block(self) -> AsyncGenerator[None, None]:
        """Wait for the turn, then do the work of the block, in which nothing is awaited."""
        async with self.piece() as spent:
            with spent:
                yield
