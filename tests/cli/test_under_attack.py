"""The running worker while malicious clients of all kinds attack both of its ports.

No limit here is wall-clock time, which depends on what else the machine does: the attack lasts until the worker has
done its work in spite of it, and only CPU time counts for a turn of the event loop.
"""

import asyncio
import resource
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import ClientSession

from consumer.app.service import Service, running
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from consumer.web.bounded_http import Bounds
from tests.cli.conftest import embedded
from tests.web.attackers import ATTACKS, attacking

pytestmark = pytest.mark.slow

RATE = 200
RECORDS = 6 * RATE
PROBES = 5
"""How many probes must be answered during the attack."""
TURN_CPU_S_MAX = 0.25
"""Of one turn of the loop: ten times what it needs, and far below what would delay a heartbeat or a probe."""
WITHIN_S = 300.0
"""Ends a test that would never end: the work takes 6 s on an idle machine and 12 s on a busy one."""
GROWTH_BYTES_MAX = 64 << 20
"""The connections of both ports times what one may hold, and room for what Python does not return."""
TOKEN = "mark-of-a-secret-token"


@pytest.fixture
def settings() -> Iterator[Settings]:
    with embedded(query_token=TOKEN) as made:
        yield made


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
    """Whether the attack has met every kind of limit that it should."""
    counted = refusals(service)
    return counted["query", "unauthorized"] > 0 and all(
        counted[port, "connections"] > Bounds().connections_max and counted[port, "size"] > 0
        for port in ("admin", "query")
    )


async def test_no_client_blocks_the_worker_or_fills_its_memory(settings: Settings, turns_s: list[float]) -> None:
    drafts = list(islice(records(Traffic(seed=7, start_ms=time.time_ns() // 1_000_000)), RECORDS))
    probes_s: list[float] = []
    async with asyncio.timeout(WITHIN_S), running(settings) as service, TrafficWriter(settings) as writer:
        while any(problem for problem in service.worker.readiness_problems().values()) or len(service.worker.lanes) < 4:
            await asyncio.sleep(0.05)
        assert service.query_port is not None
        before_bytes, highest_bytes = resident_bytes(), 0
        turns_s.clear()
        started_s, written = time.monotonic(), 0
        async with attacking(service.admin_port, service.query_port) as attacks, ClientSession() as client:
            try:
                while consumed(service) < len(drafts) or len(probes_s) < PROBES or not is_held_off(service):
                    due = min(len(drafts), int((time.monotonic() - started_s) * RATE))
                    await writer.write(drafts[written:due])
                    written = due
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
