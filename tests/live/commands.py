"""The commands as a user starts them: processes with an environment, an exit code and what they print."""

import asyncio
import os
import sys
from collections.abc import Mapping

from msgspec import Struct


class Ended(Struct, frozen=True):
    """How a command ended."""

    exit_code: int
    printed: str
    """Standard output and standard error."""


async def ended(command: str, environ: Mapping[str, str], within_s: float) -> Ended:
    """Run a command, with its options after it, to its end. Raises TimeoutError, and kills it, if it takes longer."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CC_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *command.split(), env={**inherited, **environ},
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
