"""A worker as a process: its signals, its log, and what its ports answer."""

import asyncio
import contextlib
import json
import os
import signal
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.live.commands import WAIT_S

_STEP_S = 15.0
"""Timeout of one request to a worker, which takes a hundredth of it."""


class WorkerProcess:
    """A process that runs the service."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing where the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, within_s: float = WAIT_S) -> int:
        """Wait until the process has ended; returns the exit code."""
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def is_stopped(self) -> bool:
        """Whether a signal has stopped the process, as `paused` of `crashing` does."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:  # the process has ended
            return False
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def measure_peak_bytes(self, over: asyncio.Event) -> int:
        """The largest resident size until the event."""
        peak = 0
        while not over.is_set():
            peak = max(peak, self.resident_bytes())
            await asyncio.sleep(0.01)
        return peak

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    async def end(self, number: signal.Signals, within_s: float = WAIT_S) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.send(number)
        return await self.ended(within_s)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The log lines of these events so far."""
        marks = [f'"event": "{name}"' for name in names]
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and any(mark in line for mark in marks)]

    async def logged(self, name: str, within_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for an event; returns its first log line."""
        async with asyncio.timeout(within_s):
            while not (lines := self.events(name)):
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.05)
        return lines[0]

    async def exposition(self, within_s: float = _STEP_S) -> str:
        """The metrics as text. Raises OSError if the worker does not answer."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics", within_s)

    async def metrics(self, within_s: float = _STEP_S) -> dict[str, float]:
        """Sums of all samples by metric name. Raises OSError if the worker does not answer."""
        sums: dict[str, float] = defaultdict(float)
        for line in (await self.exposition(within_s)).splitlines():
            if line and not line.startswith("#"):
                sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
        return sums

    async def counted(self, records: int) -> float:
        """Wait until the worker has counted so many records; returns how many. Brokers know of a commit before it."""
        async with asyncio.timeout(WAIT_S):
            while (counted := (await self.metrics())["conversation_records_total"]) < records:
                await asyncio.sleep(0.1)
        return counted

    async def ready(self) -> int:
        """The status of the readiness probe."""
        return (await self.readiness())[0]

    async def readiness(self) -> tuple[int, dict[str, str]]:
        """The status of the readiness probe, and its message for every check."""
        port = (await self.logged("consumer.starting"))["admin_port"]
        return await asyncio.to_thread(_probe, f"http://127.0.0.1:{port}/readyz")

    async def page(self) -> str:
        """The HTML of the live page."""
        port = (await self.logged("consumer.starting"))["query_port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/", _STEP_S)

    def text(self) -> str:
        return self._log.read_text()


def _get(url: str, within_s: float) -> str:
    with urllib.request.urlopen(url, timeout=within_s) as answer:
        return str(answer.read().decode())


def _probe(url: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=_STEP_S) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
