"""A disk that fills up under the broker's log directory: the broker ends, the worker waits, nothing is lost or twice.

Needs the right to mount a small tmpfs. Without it this is not done, and under CI that is a failure.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from consumer.runtime.ports import WorldError
from consumer.simulator.traffic import Traffic
from tests.live.broker import LocalBroker
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import Pipeline, now_ms

pytestmark = pytest.mark.kafka

DISK_BYTES = 64_000_000
COUNT = 4_000


class BrokerOnDisk(LocalBroker):
    """One whose log directory lies on a disk of its own."""

    def __init__(self, jars: Path, disk: Path) -> None:
        super().__init__(jars)
        self._disk = disk

    def _properties(self) -> dict[str, str]:
        return super()._properties() | {"log.dirs": str(self._disk / "logs"), "log.index.size.max.bytes": "65536"}

    async def ended(self) -> None:
        """Wait until the broker has given up."""
        async with asyncio.timeout(WAIT_S):
            while self.is_up:
                await asyncio.sleep(0.1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True, timeout=WAIT_S)
    if done.returncode != 0:
        told = f"NOT DONE: a full disk was not tried, a tmpfs could not be mounted (needs root): {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=WAIT_S)


@pytest.fixture
async def broker(disk: Path) -> AsyncIterator[BrokerOnDisk]:
    made = BrokerOnDisk(needed_jars(), disk)
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        await asyncio.to_thread(made.close)


def fill(disk: Path) -> Path:
    """Leave no space on a disk; returns the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65_536))
    return ballast


async def test_nothing_is_lost_and_nothing_twice_when_there_is_space_again(
    broker: BrokerOnDisk, disk: Path, unique_name: UniqueName, tmp_path: Path
) -> None:
    pipeline = Pipeline(broker.bootstrap_servers, unique_name("p"), tmp_path, request_timeout_ms=3_000)
    traffic = Traffic(seed=1, start_ms=now_ms(), conversations=100)
    try:
        await pipeline.create()
        worker = await pipeline.start_worker("tests.live.witness")
        await worker.logged("lane.opened")
        await pipeline.feed(traffic, COUNT)  # the worker is at it when the disk is full
        ballast = fill(disk)
        feeding = asyncio.create_task(pipeline.feed(traffic, COUNT, skip=COUNT))
        await broker.ended()
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, WorldError):  # some of it may be in the topic
            await feeding
        ballast.unlink()
        await asyncio.to_thread(broker.start)
        await pipeline.feed(traffic, COUNT, skip=2 * COUNT)
        await pipeline.caught_up()
        assert worker.exit_code is None
        assert await worker.end(signal.SIGTERM) == 0
        assert (await pipeline.judge()).records >= 2 * COUNT
    finally:
        await pipeline.close()
