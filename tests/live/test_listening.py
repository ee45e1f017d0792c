"""Where the real process listens: on loopback, and elsewhere only where it was told to."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

TOKEN = "0123456789abcdef-token"
LISTENING = "0A"  # of the states in /proc/net/tcp
ANY, LOOPBACK = "00000000", "0100007F"


@pytest.fixture
async def pipelines(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[list[Pipeline]]:
    made = [
        Pipeline(kafka, unique_name("closed"), tmp_path),
        Pipeline(kafka, unique_name("open"), tmp_path, query_host="0.0.0.0", query_token=TOKEN),
    ]
    for each in made:
        await each.create()
    yield made
    for each in made:
        await each.close()


def listening(pid: int) -> dict[int, str]:
    """Addresses, as the system writes them, on which a process accepts connections, by port."""
    mine = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    local = [row[1].split(":") for row in rows if row[3] == LISTENING and f"socket:[{row[9]}]" in mine]
    return {int(port, 16): address for address, port in local}


def status(port: int, **headers: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/conversations/x", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_nothing_listens_beyond_loopback_unless_told_to(pipelines: list[Pipeline]) -> None:
    expected = [({}, LOOPBACK, 404), ({"Authorization": f"Bearer {TOKEN}"}, ANY, 401)]
    for pipeline, (headers, address, refused) in zip(pipelines, expected, strict=True):
        worker = await pipeline.start_worker()
        told = await worker.logged("consumer.starting")
        await worker.logged("group.assigned")
        assert listening(worker._process.pid) == {told["admin_port"]: LOOPBACK, told["query_port"]: address}
        assert await asyncio.to_thread(status, told["query_port"]) == refused
        assert await asyncio.to_thread(lambda port, fields: status(port, **fields), told["query_port"], headers) == 404
