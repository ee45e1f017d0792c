"""`make picture`: pictures of the dashboards on real traffic, for the README.

Real workers on a real Kafka have four minutes of traffic with a peak, a worker that is killed and another that takes
its place, damaged and framed records, clocks that disagree, and a broker that pauses. A real Prometheus scrapes them
and answers the panels' queries, and Chromium draws the answers. It is not Grafana: the numbers are real, the looks are
similar.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from consumer.simulator.traffic import Traffic
from deploy.generate.__main__ import MONITORING
from tests.deploy.promql import fill_variables
from tests.deploy.tools import tool
from tests.live.broker import LocalBroker, find_broker
from tests.live.harness import Pipeline, now_ms
from tests.live.prometheus import Prometheus
from tests.live.stream import damaged, flow, framed, skewed, write
from tests.live.worker_process import WorkerProcess

PICTURES = Path(__file__).parent.parent.parent / "deploy"
NAMES = ("conversations", "pipeline")
SECONDS = 215
BASE, PEAK = 130, 240
"""Changes of conversations per second, and how many more in the peak."""
STATE_BYTES_MAX = 60_000_000
"""Without a limit the panel of it has nothing to show."""
_PAGE = Path(__file__).with_name("picture.html").read_text(encoding="utf-8")
_DRAWN_S = 60.0
_GAP_S = 2.0
_WIDTH, _CELL, _HEAD = 1_280, 23, 34


class Stage:
    """The running workers, all of which Prometheus scrapes."""

    def __init__(self, pipeline: Pipeline, prometheus: Prometheus) -> None:
        self._pipeline, self._prometheus = pipeline, prometheus
        self._ports: dict[WorkerProcess, int] = {}

    async def enter(self) -> WorkerProcess:
        worker = await self._pipeline.start_worker()
        self._ports[worker] = int((await worker.logged("consumer.starting"))["admin_port"])
        self._prometheus.scrape(list(self._ports.values()))
        return worker

    async def exit(self, worker: WorkerProcess) -> None:
        del self._ports[worker]
        await worker.end(signal.SIGKILL, 10)
        self._prometheus.scrape(list(self._ports.values()))


def traffic(seed: int, rate: int, conversations: int) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), records_per_s=rate, conversations=conversations, broken=0.004)


async def play(pipeline: Pipeline, stage: Stage, broker: LocalBroker) -> None:
    """The events of the four minutes, in their order."""
    settings = pipeline.settings
    base = asyncio.create_task(flow(settings, traffic(11, BASE, 350), SECONDS))
    first = await stage.enter()
    await first.logged("lane.opened")
    await asyncio.sleep(25)
    second = await stage.enter()
    await asyncio.sleep(30)
    peak = asyncio.create_task(flow(settings, traffic(12, PEAK, 500), 50))
    await asyncio.sleep(20)
    await write(settings, damaged(120))
    await asyncio.sleep(20)
    await write(settings, skewed(60))
    await write(settings, framed(60))
    await peak
    await stage.exit(second)
    await asyncio.sleep(22)
    await stage.enter()
    await asyncio.sleep(20)
    broker.pause()
    await asyncio.sleep(6)
    broker.resume()
    await base


async def ask(prometheus: Prometheus, dashboard: dict[str, Any], since_s: float) -> dict[str, Any]:
    """A dashboard with the answers to all of its queries, as the page needs them."""
    answers: dict[str, list[dict[str, Any]]] = {}
    until_s = time.time()
    for panel in dashboard["panels"]:
        series_of_panel = answers.setdefault(panel["title"], [])
        for target in panel.get("targets", ()):
            expr = fill_variables(target["expr"], __rate_interval="8s", __range=f"{SECONDS}s")
            answer = await (prometheus.values(expr) if target.get("instant") else prometheus.over_time(expr, since_s))
            series_of_panel += [
                {"name": _legend(target["legendFormat"], series.labels), "samples": series.samples}
                for series in answer
                if series.samples
            ]
    marks = [
        {"color": mark["iconColor"], "name": mark["name"], "at": at_s}
        for mark in dashboard["annotations"]["list"]
        for series in await prometheus.over_time(fill_variables(mark["expr"]), since_s)
        for at_s in _beginnings([at_s for at_s, _ in series.samples])
    ]
    return {"dashboard": dashboard, "answers": answers, "marks": marks, "from": since_s, "to": until_s}


def _beginnings(times_s: list[float]) -> list[float]:
    """The first time of each run without a gap; samples are a second apart."""
    return [at_s for at_s, before_s in zip(times_s, [0.0, *times_s], strict=False) if at_s - before_s > _GAP_S]


def _legend(form: str, labels: dict[str, str]) -> str:
    legend = "" if form == "__auto" else form
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


async def perform(folder: Path) -> None:
    """Play the four minutes; write the answers and the logs into a folder."""
    broker = find_broker()
    assert isinstance(broker, LocalBroker), f"needs a broker of its own, which it pauses: {broker}"
    pipeline = Pipeline(broker.bootstrap_servers, f"picture-{uuid.uuid4().hex[:8]}", folder)
    try:
        await pipeline.create()
        pipeline.change(state_total_bytes_max=STATE_BYTES_MAX)
        async with Prometheus(tool("prometheus"), folder, sorted((MONITORING / "rules").glob("*.yaml"))) as prometheus:
            since_s = time.time()
            await play(pipeline, Stage(pipeline, prometheus), broker)
            for name in NAMES:
                dashboard = json.loads((MONITORING / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
                data = await ask(prometheus, dashboard, since_s)
                (folder / f"{name}.answers.json").write_text(json.dumps(data), encoding="utf-8")
    finally:
        await pipeline.close()
        broker.close()


def photograph(answers: Path, picture: Path) -> None:
    """Have Chromium draw a dashboard with its answers into a PNG."""
    data = answers.read_text(encoding="utf-8")
    page = answers.with_suffix(".html")
    page.write_text(_PAGE.replace("/*DATA*/null", data.replace("</", "<\\/")), encoding="utf-8")
    positions = [panel["gridPos"] for panel in json.loads(data)["dashboard"]["panels"]]
    height = max(position["y"] + position["h"] for position in positions) * _CELL + _HEAD
    with tempfile.TemporaryDirectory() as profile:
        command = [tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--window-size={_WIDTH},{height}", "--virtual-time-budget=4000"]
        command += [f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=_DRAWN_S)
    palette = [tool("pngquant"), "--force", "--strip", "--output", str(picture), "64", str(picture)]
    subprocess.run(palette, check=True, capture_output=True, timeout=_DRAWN_S)


def main(folder: Path) -> None:
    """Draw the answers in a folder; get them first if it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"answers and logs in {folder}")
    answers = [folder / f"{name}.answers.json" for name in NAMES]
    if not all(file.exists() for file in answers):
        asyncio.run(perform(folder))
    for name, file in zip(NAMES, answers, strict=True):
        photograph(file, PICTURES / f"dashboards-{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="picture-")))
