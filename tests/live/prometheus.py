"""A real Prometheus that scrapes real workers, on loopback."""

import asyncio
import json
import math
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from msgspec import Struct

from tests.live.commands import WAIT_S
from tests.sockets import find_free_ports

JOB = "conversation-consumer"
_STEP_S = 60.0


class Series(Struct, frozen=True):
    """One series of an answer: its labels, and its samples as (seconds, value) where the value is a number."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]


class Prometheus:
    """A server with its data in `home`, as an async context manager.

    It scrapes and evaluates once a second.
    """

    def __init__(self, program: str, home: Path, rules: Sequence[Path] = ()) -> None:
        self._program, self._home, self._rules = program, home, rules
        (self._port,) = find_free_ports(1)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self.scrape([])
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [
                {"job_name": JOB, "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "1s"}]}
            ],
        }
        settings = self._home / "prometheus.yml"
        settings.write_text(yaml.safe_dump(config), encoding="utf-8")
        with (self._home / "prometheus.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                f"--config.file={settings}",
                f"--storage.tsdb.path={self._home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                stdout=log,
                stderr=log,
            )
        try:
            await self._ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STEP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def scrape(self, ports: Sequence[int]) -> None:
        """From now on scrape these ports of loopback."""
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]), encoding="utf-8")
        new.replace(self._targets)

    async def values(self, expr: str) -> list[Series]:
        """The answer to an expression as of now."""
        found = await self._ask("query", query=expr)
        return [_series(series["metric"], [series["value"]]) for series in found["result"]]

    async def over_time(self, expr: str, since_s: float, step_s: float = 1.0) -> list[Series]:
        """The answer from a time until now; the last step is now."""
        end_s = time.time()
        start_s = end_s - step_s * ((end_s - since_s) // step_s)
        found = await self._ask("query_range", query=expr, start=str(start_s), end=str(end_s), step=str(step_s))
        return [_series(series["metric"], series["values"]) for series in found["result"]]

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        return [rule for group in (await self._ask("rules"))["groups"] for rule in group["rules"]]

    async def until(self, expr: str, within_s: float = WAIT_S) -> None:
        """Wait until an expression has a value."""
        async with asyncio.timeout(within_s):
            while not await self.values(expr):
                await asyncio.sleep(0.2)

    async def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(await asyncio.to_thread(_get, url))
        assert answer["status"] == "success", answer
        data: dict[str, Any] = answer["data"]
        return data

    async def _ready(self) -> None:
        async with asyncio.timeout(_STEP_S):
            while True:
                assert self._process is not None
                assert self._process.returncode is None, (self._home / "prometheus.log").read_text()
                try:
                    await asyncio.to_thread(_get, f"{self.url}/-/ready")
                except OSError:  # not listening yet, or not ready
                    await asyncio.sleep(0.1)
                else:
                    return

    @property
    def _targets(self) -> Path:
        return self._home / "targets.json"


def _series(labels: dict[str, str], samples: list[tuple[float, str]]) -> Series:
    numbers = [(at_s, float(value)) for at_s, value in samples]
    return Series(labels, [(at_s, value) for at_s, value in numbers if not math.isnan(value)])


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_STEP_S) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        if error.code == 503:
            raise OSError("not ready") from error
        raise AssertionError(f"{url}: {error.read().decode()}") from error
