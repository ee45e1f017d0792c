"""The benchmark measures what it says: it is run by hand only, so this notices when it no longer fits the service."""

import asyncio
import os
import sys

import msgspec

from tests.benchmarks.throughput import FLOORS, WORKERS
from tests.live.commands import WAIT_S


async def test_throughput_prints_a_line_for_each_floor_and_the_worker(kafka: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks", "throughput", "--events", "500", "--rounds", "1",
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WAIT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    lines = [msgspec.json.decode(line) for line in out.splitlines() if line.startswith(b"{")]
    assert [line["name"] for line in lines] == [*FLOORS, *WORKERS]
    assert all({"events_per_s", "events_per_cpu_s", "of_decode_floor"} <= line.keys() for line in lines)
    assert lines[-1]["engine"] == "python"
    assert lines[1]["of_decode_floor"] == 1
    assert all(line["events_per_cpu_s"] > 0 for line in lines)
