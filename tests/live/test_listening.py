"""Where the real process listens: on loopback, and elsewhere only where a setting says so."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline
from tests.sockets import find_listeners

TOKEN = "0123456789abcdef-token"
ANY, LOOPBACK = 0, int("0100007F", 16)
"""As numbers: that of no address is the same in both families."""


@pytest.fixture
async def pipelines(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[list[Pipeline]]:
    made = [
        Pipeline(kafka, unique_name("closed"), tmp_path),
        Pipeline(kafka, unique_name("open"), tmp_path, query_host="0.0.0.0", query_token=TOKEN),
    ]
    for pipeline in made:
        await pipeline.create()
    yield made
    for pipeline in made:
        await pipeline.close()


def status(port: int, **headers: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/conversations/x", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_nothing_listens_beyond_loopback_by_default(pipelines: list[Pipeline]) -> None:
    expected = [({}, LOOPBACK, 404), ({"Authorization": f"Bearer {TOKEN}"}, ANY, 401)]
    for pipeline, (headers, address, refused) in zip(pipelines, expected, strict=True):
        worker = await pipeline.start_worker()
        starting = await worker.logged("consumer.starting")
        async with asyncio.timeout(WAIT_S):
            while await worker.ready() != 200:
                await asyncio.sleep(0.05)
        found = {port: int(text, 16) for port, text in find_listeners(worker._process.pid).items()}
        assert found == {starting["admin_port"]: LOOPBACK, starting["query_port"]: address}
        assert await asyncio.to_thread(status, starting["query_port"]) == refused
        assert (
            await asyncio.to_thread(lambda port, fields: status(port, **fields), starting["query_port"], headers) == 404
        )
