"""Whatever keeps a partition from moving is seen by every signal that can show it, and is over when its cause is.

A test per row of the table in `docs/standing-still.md`, whose causes `standstills` brings about; and what else there is
to say of single ones.
"""

import asyncio
import html
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from consumer.simulator.traffic import Traffic
from deploy.generate.__main__ import MONITORING
from tests.deploy.tools import tool
from tests.live.commands import WAIT_S, ended, environ_of, environment
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline, now_ms
from tests.live.prometheus import Prometheus
from tests.live.standstills import CAUSES, Cause, Place, Scene, recreate
from tests.live.stream import of_partition, write
from tests.live.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(600)

SEEN_S = 120.0
"""Within this time a standstill is seen: four times the contract's, for busy machines; what it took is printed."""
HEALED_S = 120.0
RULES = sorted((MONITORING / "rules").glob("*.yaml"))

Shows = Callable[[], Awaitable[bool]]
"""Whether a signal is there."""


@pytest.fixture
async def scene(
    cause: Cause, request: pytest.FixtureRequest, unique_name: UniqueName, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with cause.stage(Place(request, unique_name, tmp_path)) as scene:
        scene.partition = cause.partition
        yield scene


async def gauge(worker: WorkerProcess, name: str, partition: int) -> float:
    """A gauge of one partition; 0 as long as there is none."""
    found = re.search(rf'^{name}{{partition="{partition}"}} (\S+)$', await worker.exposition(), re.MULTILINE)
    return 0.0 if found is None else float(found[1])


class Signals:
    """The signals of the worker that is looked at in a scene."""

    def __init__(self, cause: Cause, scene: Scene, prometheus: Prometheus) -> None:
        self._cause, self._scene, self._prometheus = cause, scene, prometheus
        self.message = ""
        """What the standstill says."""

    @property
    def _worker(self) -> WorkerProcess:
        assert self._scene.worker is not None
        return self._scene.worker

    def expected(self) -> dict[str, Shows]:
        """The signals that have to come, by name, but for `check`."""
        cause = self._cause
        gauges = {"records": "lag_records", "seconds": "lag_seconds", "undecided": "undecided_records"}
        shows: dict[str, Shows] = {f"lag {name}": self._gauge(gauges[name]) for name in cause.lag}
        if "lane.stands_still" in cause.log:
            shows["standstill"] = self._gauge("standstill_seconds")
        shows |= {f"/readyz {check}": self._readiness(check) for check in cause.readyz}
        shows |= {event: self._logged(event) for event in cause.log}
        shows |= {alert: self._firing(alert) for alert in cause.alerts}
        if cause.page:
            shows["page"] = self._on_page
        if cause.ends:
            shows["exit"] = self._ended
        return shows

    def _gauge(self, name: str) -> Shows:
        async def shows() -> bool:
            return await gauge(self._worker, f"conversation_{name}", self._scene.partition) > 0

        return shows

    def _readiness(self, check: str) -> Shows:
        async def shows() -> bool:
            status, body = await self._worker.readiness()
            text = body.get(check, "ok")
            if check == "standstill":
                return status == 503 and f"partition {self._scene.partition}: " in text and self._cause.says in text
            return status == 503 and text != "ok"

        return shows

    def _logged(self, name: str) -> Shows:
        async def shows() -> bool:
            for event in self._worker.events(name):
                if name == "lane.stands_still":
                    if event["partition"] != self._scene.partition or self._cause.says not in event["message"]:
                        continue
                    assert event["cause"] == self._cause.seen_as
                    assert event["remedy"]
                    self.message = event["message"]
                elif name == "consumer.failed" and self._cause.says not in event["error"]:
                    continue
                return True
            return False

        return shows

    def _firing(self, alert: str) -> Shows:
        async def shows() -> bool:
            return bool(await self._prometheus.values(f"ALERTS{{alertname='{alert}'}}"))

        return shows

    async def _on_page(self) -> bool:
        """The row of the partition has a message."""
        rows = re.findall(r'<tr class="bad"><th[^>]*>(\d+)</th>(.*?)</tr>', await self._worker.page())
        return any(
            int(partition) == self._scene.partition and self._cause.says in html.unescape(row)
            for partition, row in rows
        )

    async def _ended(self) -> bool:
        return self._worker.exit_code == 78

    async def is_checked(self) -> float:
        """Run `check` until it says it, which is at once; returns how long it took."""
        began_s = time.monotonic()
        cause = self._cause
        wanted = re.compile(rf"^(?:warn|fail|pass)  (?:{'|'.join(cause.check)}) .*{cause.check_says}", re.MULTILINE)
        shown = await ended("check", self._scene.environ)
        assert wanted.search(shown.printed), shown.printed
        assert shown.exit_code == cause.check_code, shown.printed
        return time.monotonic() - began_s


async def all_come(
    shows: Mapping[str, Shows], scene: Scene, *, ends: bool, within_s: float = SEEN_S
) -> dict[str, float]:
    """Wait for all signals; returns how many seconds after the begin of the cause each has come."""
    pending, times_s = dict(shows), {}
    try:
        async with asyncio.timeout(within_s):
            while pending:
                for name in list(pending):
                    if await pending[name]():
                        times_s[name] = round(time.monotonic() - scene.began_s, 1)
                        del pending[name]
                assert scene.worker is not None
                assert ends or scene.worker.exit_code is None, scene.worker.text()[-3_000:]
                await asyncio.sleep(0.5)
    except TimeoutError:
        assert scene.worker is not None
        if scene.worker.exit_code is None:
            print(await scene.worker.readiness())
        print(scene.worker.text()[-5_000:])
        pytest.fail(f"no signal {', '.join(pending)} in {within_s:g} s; others: {times_s}")
    return times_s


async def all_go(shows: Mapping[str, Shows], scene: Scene) -> float:
    """Wait until everything is committed and no signal is left; returns after how many seconds that is."""
    began_s = time.monotonic()
    assert scene.worker is not None
    await scene.pipeline.caught_up(HEALED_S)
    left = {name: show for name, show in shows.items() if name != "exit" and "." not in name}  # log lines stay
    try:
        async with asyncio.timeout(HEALED_S):
            while left or (await scene.worker.readiness())[0] != 200:
                left = {name: show for name, show in left.items() if await show()}
                await asyncio.sleep(0.2)
            for name in ("standstill_seconds", "lag_seconds", "lag_records", "undecided_records"):
                while await gauge(scene.worker, f"conversation_{name}", scene.partition):
                    await asyncio.sleep(0.2)
    except TimeoutError:
        print(scene.worker.text()[-5_000:])
        pytest.fail(f"signals are left after {HEALED_S:g} s: {list(left)}, {await scene.worker.readiness()}")
    standing: set[int] = set()
    for event in scene.worker.events("lane.stands_still", "lane.moves_again", "group.assigned"):
        match event["event"]:
            case "lane.stands_still":
                standing.add(event["partition"])
            case "lane.moves_again":
                standing.discard(event["partition"])
            case _:  # what is given to another member is not this worker's any more
                standing &= set(event["partitions"])
    assert not standing
    return round(time.monotonic() - began_s, 1)


@pytest.mark.parametrize("cause", [pytest.param(cause, id=cause.name.replace(" ", "-")) for cause in CAUSES])
async def test_cause_is_seen_until_it_is_gone(
    cause: Cause, scene: Scene, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every signal comes and goes, other partitions go on, and each record is applied as if nothing had been."""
    async with Prometheus(tool("prometheus"), tmp_path, RULES) as prometheus:
        scene.prometheus = prometheus
        started_s = time.monotonic()
        worker = await scene.start_worker(*cause.command)
        await scene.write_traffic(cause.records_before)
        await scene.pipeline.caught_up()
        shows = Signals(cause, scene, prometheus)
        async with asyncio.timeout(HEALED_S):
            while any([await show() for show in shows.expected().values()]):
                await asyncio.sleep(0.2)
        scene.begin()
        # The alert on a worker that is down needs as long as the worker was up, since it looks at an average.
        up_s = time.monotonic() - started_s
        async with cause.happens(scene):
            times_s = await all_come(shows.expected(), scene, ends=cause.ends, within_s=SEEN_S + up_s)
            if cause.others_go_on:
                await scene.others_go_on()
            if cause.check:
                times_s["check"] = round(await shows.is_checked(), 1)
            if cause.restarts:
                assert await worker.end(signal.SIGTERM) == 0
                worker = await scene.start_worker()
                await scene.others_go_on()
                await all_come(shows.expected(), scene, ends=False)
                assert {event["partition"] for event in worker.events("lane.failed")} <= {scene.partition}
            if cause.others_go_on:
                assert worker.exit_code is None
        passing = {name: show for name, show in shows.expected().items() if name not in cause.lasting}
        times_s["gone"] = await all_go(passing, scene)
        print(f"{cause.name}: {times_s}; {shows.message}")
        for name, seconds in times_s.items():
            record_property(name, seconds)
        assert scene.worker is not None
        assert await scene.worker.end(signal.SIGTERM) == 0
    if cause.is_judged:
        await scene.pipeline.judge()
    else:
        before, after = scene.states_before, await scene.pipeline.states()
        assert before is not None
        assert before == after if cause.ends else before.keys() <= after.keys()


async def test_markers_that_retention_deletes_are_no_loss(pipeline: Pipeline) -> None:
    """A partition that ends in the marker of a transaction, as after `rekey`, and is empty at the next start."""
    settings = pipeline.settings
    tp = TopicPartition(settings.input_topic, 0)
    drafts = of_partition(0, Traffic(seed=1, start_ms=now_ms(), conversations=20))
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id)
    async with producer, producer.transaction():
        for draft in islice(drafts, 5):
            await producer.send_and_wait(settings.input_topic, draft.value, draft.key, 0)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert (await pipeline.committed())[tp].offset == 6
    assert await worker.end(signal.SIGTERM) == 0
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before_offset=6)})
    finally:
        await admin.close()
    successor = await pipeline.start_worker()
    await write(settings, islice(drafts, 5))
    await pipeline.caught_up()
    assert pipeline.events("lane.offset_reset") == []
    assert (await successor.metrics())["conversation_offset_resets_total"] == 0


@pytest.mark.parametrize("is_suspended", [True, False])
async def test_recreated_input(pipeline: Pipeline, *, is_suspended: bool) -> None:
    """It is filled past the committed offsets before the worker can notice. Brokers delete these with the topic, so an
    operator has to say that it is to be read; then all of it is."""
    settings = pipeline.settings
    worker = await pipeline.start_worker()
    await pipeline.write_traffic(Traffic(seed=1, start_ms=now_ms(), conversations=20, broken=0), 40)
    await pipeline.caught_up()
    if is_suspended:
        worker.send(signal.SIGSTOP)
    else:
        assert await worker.end(signal.SIGTERM) == 0
    await recreate(settings)
    await pipeline.write_traffic(Traffic(seed=2, start_ms=now_ms(), conversations=60, broken=0), 400)
    if is_suspended:
        worker.send(signal.SIGCONT)
    else:
        worker = await pipeline.start_worker()
    async with asyncio.timeout(HEALED_S):
        while not any("no committed offset" in event["error"] for event in worker.events("lane.failed")):
            await asyncio.sleep(0.2)
    assert await worker.end(signal.SIGTERM) == 0
    await pipeline.reset_offsets()
    await pipeline.start_worker()
    await pipeline.caught_up()
    written = {record.key.decode() for record in await pipeline.read(settings.input_topic) if record.key is not None}
    assert written <= (await pipeline.states()).keys()


async def test_too_few_descriptors_are_told_at_the_start(pipeline: Pipeline) -> None:
    """Four partitions on one broker need 212."""
    for command, expected in (("run", "lane.opened"), ("check", "warn  descriptors")):
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"ulimit -n 210 && exec {sys.executable} -m consumer {command}",
            env=environment(environ_of(pipeline.settings) | {"CC_ADMIN_PORT": "0", "CC_QUERY_PORT": "0"}),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        printed = ""
        async with asyncio.timeout(WAIT_S):
            while expected not in printed:
                line = await process.stdout.readline()
                assert line, printed
                printed += line.decode()
        if command == "run":
            process.send_signal(signal.SIGTERM)
        printed += (await asyncio.wait_for(process.communicate(), WAIT_S))[0].decode()
        assert process.returncode == 0, printed
        assert "all 4 partitions needs 212 file descriptors and may have 210" in printed
        assert "at most 3 partitions" in printed
