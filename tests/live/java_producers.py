"""Kafka's own producers, of its tools: what most records of a real input were written by.

Both are idempotent, as the Java producer is where nothing else is said.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from consumer.simulator.traffic import Draft
from tests.live.commands import WAIT_S

HEADERS = "na\u00efve:1,x:y"
_TOOLS = "org.apache.kafka.tools"
_LINGER_MS = 20


class JavaProducers:
    """Writes to one topic. The jars are a broker's."""

    def __init__(self, jars: Path, bootstrap_servers: str, topic: str, folder: Path) -> None:
        self._java = ("java", "-Xmx128m", "-cp", f"{jars}/*")
        self._servers = bootstrap_servers
        self._topic = topic
        self._folder = folder

    async def write(self, codec: str, drafts: Iterable[Draft]) -> None:
        """Write records with their keys, and HEADERS, by the console producer. None may have a tab or a line end."""
        lines = [b"\t".join((HEADERS.encode(), draft.key or b"", draft.value)) + b"\n" for draft in drafts]
        process = await self._start(
            "ConsoleProducer", "--bootstrap-server", self._servers, "--topic", self._topic,
            "--compression-codec", codec, "--timeout", str(_LINGER_MS),
            "--property", "parse.key=true", "--property", "parse.headers=true",
        )  # fmt: skip
        await _end(process, b"".join(lines))

    async def write_transactions(self, codec: str, values: list[bytes], count: int) -> None:
        """Write records without keys in transactions that are committed, each with values that are drawn."""
        await _end(await self._perform(codec, values, count, per_s=-1, transaction_ms=20))

    async def write_amid_transaction(self, codec: str, values: list[bytes]) -> "asyncio.subprocess.Process":
        """Start to write slowly in a transaction that does not end. The next one of this codec aborts it."""
        return await self._perform(codec, values, 1_000_000, per_s=200, transaction_ms=600_000)

    async def _perform(
        self, codec: str, values: list[bytes], count: int, per_s: int, transaction_ms: int
    ) -> "asyncio.subprocess.Process":
        payload = self._folder / f"payload-{codec}"
        payload.write_bytes(b"\n".join(values))
        return await self._start(
            "ProducerPerformance", "--topic", self._topic, "--payload-file", str(payload),
            "--num-records", str(count), "--throughput", str(per_s),
            "--transactional-id", f"{self._topic}-{codec}", "--transaction-duration-ms", str(transaction_ms),
            "--producer-props", f"bootstrap.servers={self._servers}", f"compression.type={codec}",
            f"linger.ms={_LINGER_MS}",
        )  # fmt: skip

    async def _start(self, tool: str, *arguments: str) -> "asyncio.subprocess.Process":
        return await asyncio.create_subprocess_exec(
            *self._java, f"{_TOOLS}.{tool}", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip


async def _end(process: "asyncio.subprocess.Process", given: bytes = b"") -> None:
    """Wait for the end of a tool; fails unless it exits with 0."""
    try:
        async with asyncio.timeout(WAIT_S):
            printed, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed.decode(errors="replace")[-4_000:]
