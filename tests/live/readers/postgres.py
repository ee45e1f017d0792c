"""A real PostgreSQL of Debian's package, on loopback, as an async context manager."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.live.commands import WAIT_S
from tests.sockets import find_free_ports

USER, PASSWORD = "sink", "sink-password"
_DATABASE = "postgres"


def find_programs() -> Path | str:
    """The folder of the server's programs, or why there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).parent)
    return found[-1] if found else "PostgreSQL is not installed (package postgresql)"


class Postgres:
    """A server with an empty database. It does not run as root, and does not sync its files."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._home = Path(tempfile.mkdtemp(prefix="test-postgres-"))
        (self._port,) = find_free_ports(1)
        self._user = "postgres" if os.geteuid() == 0 else None  # the package's
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """For JDBC."""
        return f"jdbc:postgresql://127.0.0.1:{self._port}/{_DATABASE}"

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query, with their values as PostgreSQL has them in JSON."""
        printed = await self.run(f"SELECT coalesce(json_agg(result), '[]') FROM ({sql}) AS result;")
        rows: list[dict[str, Any]] = msgspec.json.decode(printed)
        return rows

    async def run(self, script: str) -> bytes:
        """Run statements and return what they print. Fails at the first error."""
        process = await asyncio.create_subprocess_exec(
            "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
            "--host=127.0.0.1", f"--port={self._port}", f"--username={USER}", _DATABASE,
            env=os.environ | {"PGPASSWORD": PASSWORD, "PGTZ": "UTC"},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            printed, error = await asyncio.wait_for(process.communicate(script.encode()), WAIT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, error.decode()
        return printed

    async def __aenter__(self) -> Self:
        password = self._home / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._home, password):
                shutil.chown(path, self._user, self._user)
        initialized = await self._start(
            "initdb", f"--pgdata={self._home / 'data'}", f"--username={USER}", f"--pwfile={password}",
            "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        assert await asyncio.wait_for(initialized.wait(), WAIT_S) == 0, self._log.read_text()
        self._process = await self._start(
            "postgres", "-D", str(self._home / "data"), "-p", str(self._port), "-c", "listen_addresses=127.0.0.1",
            "-c", "unix_socket_directories=", "-c", "fsync=off",
        )  # fmt: skip
        async with asyncio.timeout(WAIT_S):
            while "ready to accept connections" not in self._log.read_text():
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)  # end connections, then stop
            await asyncio.wait_for(self._process.wait(), WAIT_S)
        shutil.rmtree(self._home, ignore_errors=True)

    async def _start(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                self._programs / program, *arguments, cwd="/", stdout=log, stderr=log,
                user=self._user, group=self._user,
            )  # fmt: skip

    @property
    def _log(self) -> Path:
        return self._home / "postgres.log"
