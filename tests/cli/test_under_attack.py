"""The running worker while clients of all kinds of malice are at both of its ports.

No limit here is on time by the clock, which depends on what else the machine does: the attack lasts until the worker
has done its work in spite of it, and of a turn of the event loop only the CPU time counts.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import ClientSession

from consumer.adapters.kafka.writer import KafkaWriter
from consumer.adapters.web.bounded_http import Bounds
from consumer.cli.service import Service, running
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Traffic, records
from tests.adapters.web.attackers import ATTACKS
from tests.cli.conftest import embedded

RATE = 200
RECORDS = 6 * RATE
PROBES = 5
"""Probes that have to be answered during the attack."""
TURN_CPU_S_MAX = 0.25
"""Of one turn of the loop: ten times what it takes, and far from what a heartbeat or a probe would miss."""
WITHIN_S = 300.0
"""Ends a test that would never end: the work takes six seconds on an idle machine, and twelve on a busy one."""
GROWTH_BYTES_MAX = 64 << 20
"""Connections of both ports times what each may hold, and room for what Python does not give back."""
TOKEN = "mark-of-a-secret-token"


@pytest.fixture
def settings() -> Iterator[Settings]:
    with embedded(query_token=TOKEN) as made:
        yield made


@asynccontextmanager
async def attacked(service: Service) -> AsyncIterator[Counter[str]]:
    """Attacks on both ports during the block; after it the counter says how often each was carried out."""
    done: Counter[str] = Counter()
    ports = (str(service.admin_port), str(service.query_port))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adapters.web.attackers", *ports,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield done
        out, _ = await process.communicate(b"")  # its standard input ends
        done.update(json.loads(out))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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


def is_held_off(service: Service) -> bool:
    """Whether each kind of limit was met that the attack has to meet."""
    counted = refusals(service)
    return counted["query", "unauthorized"] > 0 and all(
        counted[port, "connections"] > Bounds().connections_max and counted[port, "size"] > 0
        for port in ("admin", "query")
    )


async def test_no_client_stalls_the_worker_or_fills_its_memory(settings: Settings, turns_s: list[float]) -> None:
    drafts = list(islice(records(Traffic(seed=7, start_ms=time.time_ns() // 1_000_000)), RECORDS))
    probes_s: list[float] = []
    async with asyncio.timeout(WITHIN_S), running(settings) as service, KafkaWriter(settings) as writer:
        while any(problem for problem in service.worker.unready().values()) or len(service.worker.lanes) < 4:
            await asyncio.sleep(0.05)
        before_bytes, highest_bytes = resident_bytes(), 0
        turns_s.clear()
        started_s, written = time.monotonic(), 0
        async with attacked(service) as attacks, ClientSession() as client:
            try:
                while consumed(service) < len(drafts) or len(probes_s) < PROBES or not is_held_off(service):
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
            finally:
                print(
                    f"consumed {consumed(service)} of {written}, probes: {len(probes_s)}, refused {refusals(service)}"
                )
        longest_s = max(turns_s)
    grown = highest_bytes - before_bytes
    print(
        f"attacks {attacks}\nturns {len(turns_s)}, longest {longest_s * 1e3:.1f} ms of CPU; "
        f"slowest probe {max(probes_s) * 1e3:.0f} ms; memory +{grown / (1 << 20):.1f} MiB"
    )
    assert set(attacks) == {attack.__name__ for attack in ATTACKS}
    assert longest_s < TURN_CPU_S_MAX
    assert grown < GROWTH_BYTES_MAX
