"""The commands as a user starts them: processes with an environment, an exit code and what they print."""

import asyncio
import os
import sys
from collections.abc import Mapping

from msgspec import Struct

from consumer.environment import PREFIX
from consumer.settings import Settings

WAIT_S = 180.0
"""Ends a wait for what does not come. All that is waited for takes seconds, on a busy machine some tens of them."""


class Ended(Struct, frozen=True):
    """How a command ended."""

    exit_code: int
    printed: str
    """Standard output and standard error."""


def environ_of(settings: Settings) -> dict[str, str]:
    """The variables that give these settings."""
    default = Settings(bootstrap_servers="")
    return {
        f"{PREFIX}{name.upper()}": str(value)
        for name in settings.__struct_fields__
        if name != "tuning" and (value := getattr(settings, name)) != getattr(default, name)
    }


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """That of the tests, with these settings and no other of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | dict(environ)


async def ended(command: str, environ: Mapping[str, str], within_s: float = WAIT_S) -> Ended:
    """Run a command, with its options after it, to its end. Raises TimeoutError, and kills it, if it takes longer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *command.split(), env=environment(environ),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, printed.decode())
