"""The running worker while clients of all kinds of malice are at both of its ports."""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout

from consumer.adapters.kafka.writer import KafkaWriter
from consumer.adapters.web.bounded_http import Bounds
from consumer.cli.service import Service, running
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Traffic, records
from tests.adapters.web.attackers import ATTACKS
from tests.cli.conftest import embedded

ATTACK_S = 6.0
RATE = 200
STALL_S_MAX = 0.25
"""Of our own work between two turns of the loop: far from what a heartbeat or a probe would miss.

What a busy machine keeps from us piles up and is worked off in one turn, so this is not as little as a turn takes."""
PROBE_S_MAX = 5.0
GROWTH_BYTES_MAX = 64 << 20
"""Connections of both ports times what each may hold, and room for what Python does not give back."""
TOKEN = "mark-of-a-secret-token"


@pytest.fixture
def settings() -> Iterator[Settings]:
    with embedded(query_token=TOKEN) as made:
        yield made


@asynccontextmanager
async def attacked(service: Service) -> AsyncIterator[asyncio.Task[dict[str, int]]]:
    ports = (str(service.admin_port), str(service.query_port))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adapters.web.attackers", str(ATTACK_S), *ports, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield asyncio.create_task(told(process))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(process: asyncio.subprocess.Process) -> dict[str, int]:
    out, _ = await process.communicate()
    return dict(json.loads(out))


async def lateness(lags_s: list[float], stalls_s: list[float]) -> None:
    """How late a timer is, and how much of that this process was at work: the rest is the machine's."""
    while True:
        due_s, worked_s = time.monotonic() + 0.005, time.process_time()
        await asyncio.sleep(0.005)
        lags_s.append(time.monotonic() - due_s)
        stalls_s.append(min(lags_s[-1], time.process_time() - worked_s))


def consumed(service: Service) -> int:
    families = service.metrics.registry.collect()
    return int(sum(s.value for f in families for s in f.samples if s.name == "conversation_records_total"))


def refusals(service: Service) -> dict[tuple[str, str], int]:
    families = service.metrics.registry.collect()
    samples = [s for f in families for s in f.samples if s.name == "conversation_http_refusals_total"]
    return {(s.labels["port"], s.labels["reason"]): int(s.value) for s in samples}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def test_no_client_stalls_the_worker_or_fills_its_memory(settings: Settings) -> None:
    drafts = list(islice(records(Traffic(seed=7, start_ms=time.time_ns() // 1_000_000)), int(RATE * ATTACK_S)))
    lags_s: list[float] = []
    stalls_s: list[float] = []
    probes_s: list[float] = []
    async with running(settings) as service, KafkaWriter(settings) as writer:
        async with asyncio.timeout(30):
            while any(problem for problem in service.worker.unready().values()) or len(service.worker.lanes) < 4:
                await asyncio.sleep(0.05)
        before_bytes, highest_bytes = resident_bytes(), 0
        measuring = asyncio.create_task(lateness(lags_s, stalls_s))
        started_s, written = time.monotonic(), 0
        async with attacked(service) as attack, ClientSession(timeout=ClientTimeout(total=PROBE_S_MAX)) as client:
            while not attack.done():
                owed = min(len(drafts), int((time.monotonic() - started_s) * RATE))
                await writer.write(drafts[written:owed])
                written = owed
                asked_s = time.monotonic()
                # A new connection each time, as the kubelet makes one.
                async with client.get(
                    f"http://127.0.0.1:{service.admin_port}/livez", headers={"Connection": "close"}
                ) as answer:
                    assert (answer.status, await answer.json()) == (200, {"lanes": "ok"})
                probes_s.append(time.monotonic() - asked_s)
                highest_bytes = max(highest_bytes, resident_bytes())
                await asyncio.sleep(0.1)
            done = await attack
            measuring.cancel()
            await writer.write(drafts[written:])
            await writer.flush()
            async with asyncio.timeout(30):
                while consumed(service) < len(drafts):
                    await asyncio.sleep(0.1)
        counted = refusals(service)
    p99_s = statistics.quantiles(lags_s, n=100)[98]
    grown = highest_bytes - before_bytes
    print(
        f"attacks {done}\nloop lag: p99 {p99_s * 1e3:.1f} ms, most {max(lags_s) * 1e3:.1f} ms, "
        f"of it our own work {max(stalls_s) * 1e3:.1f} ms; "
        f"probes: {len(probes_s)}, slowest {max(probes_s) * 1e3:.0f} ms; memory +{grown / (1 << 20):.1f} MiB\n{counted}"
    )
    assert set(done) == {attack.__name__ for attack in ATTACKS}
    assert max(stalls_s) < STALL_S_MAX
    assert grown < GROWTH_BYTES_MAX
    assert len(probes_s) > 1
    for port in ("admin", "query"):
        assert counted[port, "connections"] > Bounds().connections_max
        assert counted[port, "size"] > 0
    assert counted["query", "unauthorized"] > 0
