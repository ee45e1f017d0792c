"""A real worker of Kafka Connect, in standalone mode, with the sinks of deploy/connect."""

import asyncio
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from consumer.settings import Settings
from tests.live.commands import WAIT_S
from tests.live.readers import java
from tests.live.readers.postgres import PASSWORD, USER
from tests.sockets import find_free_ports

FOLDER = Path(__file__).parents[3] / "deploy" / "connect"


class Connect:
    """Sinks for the topics of a pipeline, in one process. Their names, and so their groups, are of this pipeline."""

    def __init__(self, jars: Path, settings: Settings, database_url: str, home: Path) -> None:
        self._jars, self._settings, self._database_url, self._home = jars, settings, database_url, home
        (self._port,) = find_free_ports(1)
        self._process: asyncio.subprocess.Process | None = None
        topics = {"transitions": settings.transitions_topic, "states": settings.state_topic}
        self._sinks = {name: self._configure(name, topic) for name, topic in topics.items()}

    def group_of(self, topic: str) -> str:
        """The consumer group of the sink of a topic."""
        (name,) = (sink["name"] for sink in self._sinks.values() if sink["config"]["topics"] == topic)
        return f"connect-{name}"

    def _configure(self, name: str, topic: str) -> dict[str, Any]:
        sink: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_bytes())
        sink["name"] = f"{self._settings.group_id}-{sink['name']}"
        sink["config"]["topics"] = topic
        sink["config"]["consumer.override.session.timeout.ms"] = "6000"  # after a kill the next one waits so long
        (self._home / f"{name}.json").write_text(json.dumps(sink))
        return sink

    async def start(self) -> None:
        """Start the process, and wait until its tasks run."""
        properties = {
            **_read_properties(FOLDER / "worker.properties"),
            "bootstrap.servers": self._settings.bootstrap_servers,
            "listeners": f"HTTP://127.0.0.1:{self._port}",
            "offset.storage.file.filename": str(self._home / "offsets"),
            "offset.flush.interval.ms": "1000",
        }
        config = self._home / "worker.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *java(self._jars, self._home),
                "org.apache.kafka.connect.cli.ConnectStandalone", str(config),
                *(str(self._home / f"{name}.json") for name in self._sinks),
                env=os.environ | {
                    "POSTGRES_URL": self._database_url, "POSTGRES_USER": USER, "POSTGRES_PASSWORD": PASSWORD,
                },
                stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(WAIT_S):
            while await asyncio.to_thread(self._list_states) != ["RUNNING"] * len(self._sinks):
                assert self._process.returncode is None, self._log.read_text()[-4_000:]
                await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """Kill the process: what it has not committed comes again."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def check(self) -> None:
        """Fail if a task has failed, with its trace."""
        for status in self._read_statuses():
            for task in status["tasks"]:
                assert task["state"] == "RUNNING", task

    def _list_states(self) -> list[str]:
        try:
            return [task["state"] for status in self._read_statuses() for task in status["tasks"]]
        except (OSError, urllib.error.HTTPError):  # it has not started
            return []

    def _read_statuses(self) -> list[dict[str, Any]]:
        statuses = []
        for sink in self._sinks.values():
            url = f"http://127.0.0.1:{self._port}/connectors/{sink['name']}/status"
            with urllib.request.urlopen(url, timeout=WAIT_S) as response:
                statuses.append(json.load(response))
        return statuses

    @property
    def _log(self) -> Path:
        return self._home / "connect.log"


def _read_properties(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)
