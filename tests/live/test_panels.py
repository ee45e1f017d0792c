"""A real Prometheus scrapes real workers at work: every panel of the dashboards has something to show."""

import asyncio
import math
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from consumer.simulator.traffic import Traffic
from deploy.generate.__main__ import MONITORING
from deploy.generate.conversations import CONVERSATIONS
from deploy.generate.marks import MARKS
from deploy.generate.panels import Panel, fill_scope
from deploy.generate.pipeline import PIPELINE
from tests.deploy.promql import fill_variables
from tests.deploy.tools import tool
from tests.live.commands import WAIT_S
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.prometheus import Prometheus, Series
from tests.live.stream import damaged, flow, framed, skewed, write
from tests.live.worker_process import WorkerProcess

FLOW_S = 9
COUNTED_ONCE = "namespace_job_media_state:conversation_communications:sum"
PANELS = (*CONVERSATIONS.panels(), *PIPELINE.panels())
ZERO_IN_GOOD_HEALTH = {
    "Failures, 15 min": "no commit fails while the broker is well",
    "Records left to restore": "so small a state is read between two scrapes",
    "Offline partitions, by topic": "every partition has a leader",
    "Standstill, by partition": "every partition moves",
    "Records behind open transactions, by partition": "the input is not written in transactions",
    "Records that the native engine declined": "the Python engine declines none",
    "Unowned partitions": "a rebalance is over between two scrapes",
}
"""Panels that may show nothing but zeros here, with the reason. All others must show something."""


def traffic(seed: int) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), records_per_s=230, conversations=60, broken=0.02)


async def port(worker: WorkerProcess) -> int:
    return int((await worker.logged("consumer.starting"))["admin_port"])


async def be_refused(worker: WorkerProcess, seconds: float) -> None:
    """Ask the query port for another host, again and again."""
    query_port = (await worker.logged("consumer.starting"))["query_port"]
    misdirected = urllib.request.Request(f"http://127.0.0.1:{query_port}/", headers={"Host": "elsewhere.example"})
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        with pytest.raises(urllib.error.HTTPError, match="421"):
            await asyncio.to_thread(urllib.request.urlopen, misdirected, timeout=WAIT_S)
        await asyncio.sleep(0.5)


async def shown(prometheus: Prometheus, panel: Panel, since_s: float) -> list[Series]:
    """What all queries of a panel answer, each as Grafana would ask it."""
    found: list[Series] = []
    elapsed_s = math.ceil(time.time() - since_s)
    for query in panel.queries:
        expr = fill_variables(fill_scope(query.expr), __rate_interval="10s", __range=f"{elapsed_s}s")
        answer = await (prometheus.values(expr) if panel.kind == "bars" else prometheus.over_time(expr, since_s))
        assert any(series.samples for series in answer), f"{panel.title}: no data for {expr}"
        found += answer
    return found


async def test_every_panel_shows_something(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.change(state_total_bytes_max=1_000_000_000)  # without a limit its panel has nothing to show
    since_s, settings = time.time(), pipeline.settings
    promtool, program = tool("promtool"), tool("prometheus")
    rules = sorted((MONITORING / "rules").glob("*.yaml"))
    async with Prometheus(program, tmp_path, rules) as prometheus:
        first = await pipeline.start_worker()
        prometheus.scrape([await port(first)])
        await first.logged("lane.opened")
        await flow(settings, traffic(7), FLOW_S)
        second = await pipeline.start_worker()
        prometheus.scrape([await port(first), await port(second)])
        await second.logged("lane.opened")
        await asyncio.gather(
            flow(settings, traffic(8), FLOW_S),
            write(settings, skewed(300)),
            write(settings, framed(300)),
            be_refused(first, FLOW_S),
        )
        exposition = await asyncio.to_thread(_exposition, await port(first))
        assert await second.end(signal.SIGTERM) == 0
        prometheus.scrape([await port(first)])
        await prometheus.until(f"conversation_assigned_partitions == {PARTITIONS}")  # a new lane counts from 0
        await prometheus.until(f"count(conversation_partition_generation > 2) == {PARTITIONS}")
        await prometheus.until(f"sum({COUNTED_ONCE}) == sum(conversation_communications)")
        await write(settings, damaged(settings.dead_letters_consecutive_max + 100))
        await prometheus.until("conversation_breaker_open == 1")
        await prometheus.until("ALERTS{alertname='ConversationBreakerOpen'}")
        zero = set()
        for panel in PANELS:
            if not any(value for series in await shown(prometheus, panel, since_s) for _, value in series.samples):
                zero.add(panel.title)
        assert zero <= ZERO_IN_GOOD_HEALTH.keys()
        for mark in MARKS:
            assert await prometheus.over_time(fill_variables(fill_scope(mark.expr)), since_s), mark.name
        assert [rule for rule in await prometheus.rules() if rule["health"] != "ok"] == []
    linted = await asyncio.to_thread(_linted, promtool, exposition)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def _linted(promtool: str, exposition: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [promtool, "check", "metrics"]
    return subprocess.run(command, input=exposition, capture_output=True, timeout=WAIT_S, check=False)


def _exposition(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as answer:
        body: bytes = answer.read()
        return body


def test_the_exceptions_are_panels() -> None:
    assert {panel.title for panel in PANELS} >= ZERO_IN_GOOD_HEALTH.keys()
