"""The worker: lanes come and go with the group's decisions, each end is bounded, and nothing of it is silent."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from consumer.core.record import Record
from consumer.runtime import lane as lane_module
from consumer.runtime import worker as worker_module
from consumer.runtime.lane import Lane
from consumer.runtime.ports import Committed, Misfit, Unreachable
from consumer.runtime.standstill import Standstill
from consumer.runtime.state_store import StateStore
from consumer.runtime.worker import Worker
from tests.fakes import WAIT_S, Broker, FakeTelemetry, fails, nothing, turns, until, world_of
from tests.runtime.scenes import FOREVER_MS, call, rubbish, settings_of

SOON_S = 0.2


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.001)


class Scene:
    """A worker on a broker."""

    def __init__(self, *records: Record, **changed: Any) -> None:
        self.broker = Broker(records)
        self.partition = self.broker.partitions[0]
        self.telemetry = FakeTelemetry()
        self.worker = Worker(settings_of(**changed), world_of(self.broker, self.telemetry))

    async def serving(self, *partitions: int) -> "Scene":
        """Assign partitions and wait for their lanes."""
        self.worker.assigned(partitions)
        await until(lambda: all(lane.phase == "running" for lane in self.worker.lanes.values()))
        return self

    def reasons(self) -> list[tuple[int, str]]:
        """What lanes ended with."""
        return [(partition, reason) for partition, reason in self.telemetry.of("lane_closed")]


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_drain_commits_what_is_staged() -> None:
    scene = await Scene(call(0, "alerting", 1), commit_interval_ms=FOREVER_MS).serving(0)
    await until(lambda: scene.broker.last_call() == "fetch 1")
    assert scene.partition.committed is None
    assert await scene.worker.drain()
    assert scene.partition.committed is not None
    assert scene.reasons() == [(0, "drained")]


async def test_a_drain_takes_drain_s_at_most() -> None:
    scene = Scene(call(0, "alerting", 1), drain_s=SOON_S)
    scene.broker.at("commit", never)
    await scene.serving(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    async with asyncio.timeout(WAIT_S):
        assert not await scene.worker.drain()
    assert scene.reasons() == [(0, "abandoned")]
    assert scene.partition.committed is None


async def test_a_revocation_takes_half_the_rebalance_timeout_at_most() -> None:
    scene = Scene(call(0, "alerting", 1), rebalance_timeout_ms=2_000)  # in half of it the other lane ends
    scene.broker.at("commit", never)
    await scene.serving(0, 1)
    await until(lambda: "commit 1" in scene.broker.calls)
    async with asyncio.timeout(WAIT_S):
        await scene.worker.revoked([0, 1])
    assert scene.reasons() == [(0, "abandoned"), (1, "revoked")]
    assert scene.worker.lanes == {}


async def test_a_partition_that_comes_back_reads_only_what_was_written_since() -> None:
    scene = await Scene(call(0, "alerting", 1)).serving(0)
    await until(lambda: scene.partition.committed is not None and scene.broker.last_call() == "fetch 1")
    await scene.worker.revoked([0])
    await scene.serving(0)
    assert [each for each in scene.broker.calls if each.startswith("read")] == ["read 0", "read 1"]
    assert await scene.worker.drain()


async def test_the_state_of_a_partition_that_does_not_come_back_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "KEPT_S", SOON_S)
    scene = await Scene(call(0, "alerting", 1)).serving(0)
    store = weakref.ref(scene.worker.lanes[0].store)
    await scene.worker.revoked([0])
    async with asyncio.timeout(WAIT_S):
        while store() is not None:
            await asyncio.sleep(SOON_S)
            gc.collect()


@pytest.mark.parametrize("first", ["drained", "revoked"])
async def test_a_drain_and_a_revocation_at_the_same_time_end_a_lane_once(first: str) -> None:
    scene = Scene(call(0, "alerting", 1))
    held = asyncio.Event()

    async def hold() -> None:
        await held.wait()

    scene.broker.at("commit", hold)
    await scene.serving(0)
    await until(lambda: "commit 1" in scene.broker.calls)
    both = [scene.worker.drain(), scene.worker.revoked([0])]
    ending = asyncio.gather(*(both if first == "drained" else reversed(both)))
    await turns()
    held.set()
    async with asyncio.timeout(WAIT_S):
        assert set(await ending) == {True, None}  # the drain says whether it was in time
    assert scene.reasons() == [(0, first)]
    assert scene.partition.committed is not None


async def test_after_an_abandoned_lane_the_state_is_read_from_the_beginning() -> None:
    each = {"commit_records_max": 1, "slice_ms_max": 1e-6, "rebalance_timeout_ms": int(2_000 * SOON_S)}
    scene = Scene(call(0, "alerting", 1), call(1, "connected", 2), **each)
    scene.broker.at("commit", nothing, never)
    await scene.serving(0)
    await until(lambda: "commit 2" in scene.broker.calls)
    await scene.worker.revoked([0])
    await scene.serving(0)
    assert [each for each in scene.broker.calls if each.startswith("read")] == ["read 0", "read 0"]
    assert await scene.worker.drain()


async def test_a_worker_that_was_given_nothing_is_ready_and_not_stalled() -> None:
    scene = Scene()
    assert scene.worker.unready()["group"] is not None
    scene.worker.assigned([])
    scene.broker.clock.now_s += 1e6
    assert set(scene.worker.unready().values()) == {None}
    assert set(scene.worker.stalled().values()) == {None}


async def test_worker_is_not_ready_while_it_is_cut_off_or_a_partition_stands_still() -> None:
    scene = await Scene().serving(*range(8))
    scene.worker.note_connection(Unreachable("connecting to kafka:9092: TimeoutError"))
    assert scene.worker.unready()["connection"] == "connecting to kafka:9092: TimeoutError"
    scene.worker.note_connection(None)
    assert scene.worker.unready()["connection"] is None
    for lane in scene.worker.lanes.values():
        lane.standstill = Standstill("leader", "no broker leads the partition", 0.0)
    shown = str(scene.worker.unready()["standstill"])
    assert shown.startswith("partition 0: no broker leads the partition; partition 1: ")
    assert shown.endswith("; and 3 more")
    assert await scene.worker.drain()


async def test_failing_lane_ends_no_worker_whose_other_lanes_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 0.0)
    scene = Scene(retry_s_max=10.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    scene.broker.at("open", *[fail_later] * 50)
    scene.worker.assigned([0])
    scene.worker.lanes[1] = other = Lane(
        1, StateStore(scene.worker._rules), settings_of(), scene.worker._policy, scene.worker._world
    )
    other.phase = "running"
    await until(lambda: len(scene.telemetry.of("commit_failed")) == 20)
    other.standstill = Standstill("leader", "no broker leads the partition", 0.0)
    with pytest.raises(Misfit, match="CC_RETRY_S_MAX"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_a_worker_is_ready_when_its_lanes_are_open() -> None:
    scene = Scene()
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    scene.broker.at("open", wait, nothing)
    scene.worker.assigned([4, 7])
    assert scene.worker.stalled() == {"lanes": None}
    await until(lambda: scene.worker.lanes[7].phase == "running")
    assert scene.worker.unready() == {
        "group": None,
        "connection": None,
        "standstill": None,
        "lanes": "partitions [4] are not open",
        "breaker": None,
        "draining": None,
    }
    gate.set()
    await until(lambda: scene.worker.lanes[4].phase == "running")
    assert set(scene.worker.unready().values()) == {None}
    assert await scene.worker.drain()


async def test_a_partition_that_is_assigned_twice_keeps_its_lane() -> None:
    scene = await Scene(call(0, "alerting", 1)).serving(0)
    lane = scene.worker.lanes[0]
    await scene.serving(0, 1)
    assert scene.worker.lanes[0] is lane
    assert scene.broker.calls.count("open") == 2
    await scene.worker.revoked([0, 1])
    assert scene.telemetry.of("rebalanced") == [("assigned", [0]), ("assigned", [0, 1]), ("revoked", [0, 1])]


async def test_lanes_that_fail_one_after_another_are_one_failure() -> None:
    scene = Scene()
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))
    scene.broker.at("open", fails(Misfit("first")), fails(Misfit("second")))
    scene.worker.assigned([0, 1])
    with pytest.raises(Misfit, match="first"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)
    await until(lambda: all(lane.phase == "closed" for lane in scene.worker.lanes.values()))
    await turns()
    assert errors == []


async def test_where_there_is_nothing_to_end_it_has_ended() -> None:
    scene = Scene()
    async with asyncio.timeout(WAIT_S):
        await scene.worker.revoked([])
        await scene.worker.revoked([3])
        assert await scene.worker.drain()
    assert scene.reasons() == []


async def test_an_abandoned_lane_that_ends_in_its_own_time_is_nobodys_failure() -> None:
    scene = Scene(call(0, "alerting", 1), rebalance_timeout_ms=int(2_000 * SOON_S))
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))
    scene.broker.at("commit", never)
    await scene.serving(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    await scene.worker.revoked([0])
    await until(lambda: scene.broker.last_call() == "close")
    await turns()
    assert (scene.reasons(), errors) == ([(0, "abandoned")], [])
    failure = asyncio.ensure_future(scene.worker.failure())
    await turns()
    assert not failure.done()
    failure.cancel()


async def test_a_blocked_lane_makes_the_worker_unready_but_not_stalled() -> None:
    scene = Scene(*map(rubbish, range(5)), dead_letters_consecutive_max=3)
    scene.worker.assigned([0])
    await until(lambda: scene.worker.lanes[0].phase == "blocked")
    scene.broker.clock.now_s += 1e6
    await until(lambda: set(scene.worker.stalled().values()) == {None})
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in str(scene.worker.unready()["breaker"])
    assert await scene.worker.drain()


async def test_a_lane_without_progress_is_stalled_past_two_commits_and_a_request() -> None:
    scene = Scene(call(0, "alerting", 1), drain_s=SOON_S)
    scene.broker.at("commit", never)
    await scene.serving(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    limit_s = 2 * 20.0 + 15.0
    scene.broker.clock.now_s = scene.worker.lanes[0].last_progress_s + limit_s
    assert scene.worker.stalled() == {"lanes": None}
    scene.broker.clock.now_s += 0.001
    assert "partitions [0] made no progress for 55 s" in str(scene.worker.stalled()["lanes"])
    assert not await scene.worker.drain()


async def test_an_opening_is_progress_with_each_answer_however_slow_all_are_together() -> None:
    scene = Scene(call(0, "alerting", 1))
    stalled = []

    async def slow() -> None:
        stalled.append(scene.worker.stalled()["lanes"])
        scene.broker.clock.now_s += 14.0  # a second less than a request may take
        stalled.append(scene.worker.stalled()["lanes"])

    for asked in ("member", "open", "committed", "seek", "read", "chunk"):
        scene.broker.at(asked, slow, slow)
    scene.partition.state_log = [(b"c%d" % number, None) for number in range(6)]
    scene.partition.committed = Committed(0, "")
    await scene.serving(0)
    assert set(stalled) == {None}
    assert len(stalled) >= 2 * 6
    assert await scene.worker.drain()


async def test_a_misfit_of_a_lane_is_the_failure_of_the_worker() -> None:
    scene = Scene()
    scene.broker.at("open", fails(Misfit("no permission")))
    scene.worker.assigned([0])
    with pytest.raises(Misfit, match="no permission"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_the_first_failure_is_the_one_that_counts() -> None:
    scene = Scene()
    scene.worker.fail(Misfit("no permission"))
    scene.worker.fail(Misfit("another"))
    with pytest.raises(Misfit, match="no permission"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_nothing_is_begun_while_draining() -> None:
    scene = await Scene().serving(0)
    assert await scene.worker.drain()
    scene.worker.assigned([1])
    assert scene.worker.lanes == {}
    assert scene.worker.unready()["draining"] is not None


@pytest.mark.parametrize("call", ["member", "open", "committed", "seek", "commit"])
async def test_a_lane_that_is_ended_by_a_cancellation_of_nobodys_does_not_go_unnoticed(call: str) -> None:
    scene = Scene(rubbish(0))
    scene.broker.at(call, fails(asyncio.CancelledError()))
    scene.worker.assigned([0])
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Misfit, match="partition 0 ended by itself"):
            await scene.worker.failure()
