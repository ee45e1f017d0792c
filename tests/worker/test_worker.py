"""The worker: lanes open and close with assignments, closing takes bounded time, and no failure is silent."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from consumer.core.record import Record
from consumer.engine.output import Output
from consumer.worker import lane as lane_module
from consumer.worker import worker as worker_module
from consumer.worker.lane import Lane
from consumer.worker.ports import Committed, ConfigurationError, RetriableError, UnreadableError
from consumer.worker.standstill import Standstill
from consumer.worker.worker import Worker
from tests.fakes import WAIT_S, Broker, FakeTelemetry, fails, lane_context, nothing, turns, until
from tests.worker.scenes import FOREVER_MS, call, rubbish, settings_of
from tests.worker.serving import set_partition

pytestmark = pytest.mark.usefixtures("each_engine")

SOON_S = 0.2


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.001)


class Scene:
    """A worker on a broker."""

    def __init__(self, *records: Record, **changed: Any) -> None:
        state_bytes_max = changed.pop("state_bytes_max", 0)
        self.broker = Broker(records)
        self.partition = self.broker.partitions[0]
        self.telemetry = FakeTelemetry()
        settings = settings_of(**changed)
        self.context = lane_context(self.broker, settings, self.telemetry)
        self.worker = Worker(settings, self.context, state_bytes_max)

    async def serve(self, *partitions: int) -> "Scene":
        """Assign partitions and wait for their lanes."""
        self.worker.assigned(partitions)
        await until(lambda: all(lane.phase == "running" for lane in self.worker.lanes.values()))
        return self

    def reasons(self) -> list[tuple[int, str]]:
        """(partition, reason) of the closed lanes."""
        return [(partition, reason) for partition, reason in self.telemetry.of("lane_closed")]


async def wait_forever() -> None:
    await asyncio.Event().wait()


async def test_drain_commits_staged_records() -> None:
    scene = await Scene(call(0, "alerting", 1), commit_interval_ms=FOREVER_MS).serve(0)
    await until(lambda: scene.broker.last_call() == "fetch 1")
    assert scene.partition.committed is None
    assert await scene.worker.drain()
    assert scene.partition.committed is not None
    assert scene.reasons() == [(0, "drained")]


async def test_drain_takes_at_most_drain_s() -> None:
    scene = Scene(call(0, "alerting", 1), drain_s=SOON_S)
    scene.broker.at("commit", wait_forever)
    await scene.serve(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    async with asyncio.timeout(WAIT_S):
        assert not await scene.worker.drain()
    assert scene.reasons() == [(0, "abandoned")]
    assert scene.partition.committed is None


async def test_revocation_takes_at_most_half_the_rebalance_timeout() -> None:
    scene = Scene(call(0, "alerting", 1), commit_timeout_s=2 / 3)  # in half of three of them the other lane ends
    scene.broker.at("commit", wait_forever)
    await scene.serve(0, 1)
    await until(lambda: "commit 1" in scene.broker.calls)
    async with asyncio.timeout(WAIT_S):
        await scene.worker.revoked([0, 1])
    assert scene.reasons() == [(0, "abandoned"), (1, "revoked")]
    assert scene.worker.lanes == {}


async def test_partition_assigned_again_reads_only_new_states() -> None:
    scene = await Scene(call(0, "alerting", 1)).serve(0)
    await until(lambda: scene.partition.committed is not None and scene.broker.last_call() == "fetch 1")
    await scene.worker.revoked([0])
    await scene.serve(0)
    assert [name for name in scene.broker.calls if name.startswith("read")] == ["read 0", "read 1"]
    assert await scene.worker.drain()


async def test_state_of_a_revoked_partition_is_freed_after_kept_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "KEPT_S", SOON_S)
    scene = await Scene(call(0, "alerting", 1)).serve(0)
    store = weakref.ref(scene.worker.lanes[0].engine.states)
    await scene.worker.revoked([0])
    async with asyncio.timeout(WAIT_S):
        while store() is not None:
            await asyncio.sleep(SOON_S)
            gc.collect()


@pytest.mark.parametrize("first", ["drained", "revoked"])
async def test_simultaneous_drain_and_revocation_close_a_lane_once(first: str) -> None:
    scene = Scene(call(0, "alerting", 1))
    held = asyncio.Event()

    async def hold() -> None:
        await held.wait()

    scene.broker.at("commit", hold)
    await scene.serve(0)
    await until(lambda: "commit 1" in scene.broker.calls)
    closings = [scene.worker.drain(), scene.worker.revoked([0])]
    closing = asyncio.gather(*(closings if first == "drained" else reversed(closings)))
    await turns()
    held.set()
    async with asyncio.timeout(WAIT_S):
        assert set(await closing) == {True, None}  # the drain returns whether it was in time
    assert scene.reasons() == [(0, first)]
    assert scene.partition.committed is not None


async def test_state_of_an_abandoned_lane_is_restored_in_full() -> None:
    changed = {"commit_records_max": 1, "slice_ms_max": 1e-6, "commit_timeout_s": SOON_S}
    scene = Scene(call(0, "alerting", 1), call(1, "connected", 2), **changed)
    scene.broker.at("commit", nothing, wait_forever)
    await scene.serve(0)
    await until(lambda: "commit 2" in scene.broker.calls)
    await scene.worker.revoked([0])
    await scene.serve(0)
    assert [name for name in scene.broker.calls if name.startswith("read")] == ["read 0", "read 0"]
    assert await scene.worker.drain()


async def test_worker_without_partitions_is_ready_and_not_stalled() -> None:
    scene = Scene()
    assert scene.worker.readiness_problems()["group"] is not None
    scene.worker.assigned([])
    scene.broker.clock.now_s += 1e6
    assert set(scene.worker.readiness_problems().values()) == {None}
    assert set(scene.worker.liveness_problems().values()) == {None}


async def test_revoked_partition_is_awaited_until_the_next_assignment() -> None:
    scene = await Scene(call(0, "alerting", 1)).serve(0, 1)
    still = scene.worker.lanes[0].standstill = Standstill("unread", "8 records wait and none is read", 0.0)
    await scene.worker.revoked([0, 1])
    assert {partition: awaited.standstill for partition, awaited in scene.worker.awaited.items()} == {0: still, 1: None}
    assert scene.worker.readiness_problems()["standstill"] == "partition 0: 8 records wait and none is read"
    await scene.serve(0)
    assert scene.worker.awaited == {}
    assert scene.worker.lanes[0].standstill == still
    assert await scene.worker.drain()
    assert scene.worker.awaited == {}


async def test_lost_connection_or_a_standstill_makes_worker_unready() -> None:
    scene = await Scene().serve(*range(8))
    scene.worker.note_connection(RetriableError("connecting to kafka:9092: TimeoutError"))
    assert scene.worker.readiness_problems()["connection"] == "connecting to kafka:9092: TimeoutError"
    scene.worker.note_connection(None)
    assert scene.worker.readiness_problems()["connection"] is None
    for lane in scene.worker.lanes.values():
        lane.standstill = Standstill("leader", "no broker leads the partition", 0.0)
    problem = str(scene.worker.readiness_problems()["standstill"])
    assert problem.startswith("partition 0: no broker leads the partition; partition 1: ")
    assert problem.endswith("; and 3 more")
    assert await scene.worker.drain()


async def test_failing_lane_does_not_end_a_worker_whose_others_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 0.0)
    scene = Scene(retry_s_max=10.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    scene.broker.at("open", *[fail_later] * 50)
    scene.worker.assigned([0])
    context = scene.worker._context
    scene.worker.lanes[1] = other = Lane(1, context.new_engine(), settings_of(), scene.worker._policy, context)
    other.phase = "running"
    await until(lambda: len(scene.telemetry.of("commit_failed")) == 20)
    other.standstill = Standstill("leader", "no broker leads the partition", 0.0)
    with pytest.raises(ConfigurationError, match="could not be served"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_worker_is_ready_when_its_lanes_are_open() -> None:
    scene = Scene()
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    scene.broker.at("open", wait, nothing)
    scene.worker.assigned([4, 7])
    assert scene.worker.liveness_problems() == {"lanes": None}
    await until(lambda: scene.worker.lanes[7].phase == "running")
    assert scene.worker.readiness_problems() == {
        "group": None,
        "connection": None,
        "standstill": None,
        "lanes": "partitions [4] are not open",
        "breaker": None,
        "batches": None,
        "memory": None,
        "draining": None,
    }
    gate.set()
    await until(lambda: scene.worker.lanes[4].phase == "running")
    assert set(scene.worker.readiness_problems().values()) == {None}
    assert await scene.worker.drain()


async def test_partition_assigned_twice_keeps_its_lane() -> None:
    scene = await Scene(call(0, "alerting", 1)).serve(0)
    lane = scene.worker.lanes[0]
    await scene.serve(0, 1)
    assert scene.worker.lanes[0] is lane
    assert scene.broker.calls.count("open") == 2
    await scene.worker.revoked([0, 1])
    assert scene.telemetry.of("rebalanced") == [("assigned", [0]), ("assigned", [0, 1]), ("revoked", [0, 1])]


async def test_several_failing_lanes_are_one_failure() -> None:
    scene = Scene()
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    scene.broker.at("open", fails(ConfigurationError("first")), fails(ConfigurationError("second")))
    scene.worker.assigned([0, 1])
    with pytest.raises(ConfigurationError, match="first"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)
    await until(lambda: all(lane.phase == "closed" for lane in scene.worker.lanes.values()))
    await turns()
    assert errors == []


async def test_closing_without_lanes_returns_at_once() -> None:
    scene = Scene()
    async with asyncio.timeout(WAIT_S):
        await scene.worker.revoked([])
        await scene.worker.revoked([3])
        assert await scene.worker.drain()
    assert scene.reasons() == []


async def test_late_end_of_an_abandoned_lane_is_no_failure() -> None:
    scene = Scene(call(0, "alerting", 1), commit_timeout_s=SOON_S)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    scene.broker.at("commit", wait_forever)
    await scene.serve(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    await scene.worker.revoked([0])
    await until(lambda: scene.broker.last_call() == "close")
    await turns()
    assert (scene.reasons(), errors) == ([(0, "abandoned")], [])
    failure = asyncio.ensure_future(scene.worker.failure())
    await turns()
    assert not failure.done()
    failure.cancel()


async def test_blocked_lane_makes_worker_unready_but_not_stalled() -> None:
    scene = Scene(*map(rubbish, range(5)), dead_letters_consecutive_max=3)
    scene.worker.assigned([0])
    await until(lambda: scene.worker.lanes[0].phase == "blocked")
    scene.broker.clock.now_s += 1e6
    await until(lambda: set(scene.worker.liveness_problems().values()) == {None})
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in str(scene.worker.readiness_problems()["breaker"])
    assert await scene.worker.drain()


async def test_too_large_batch_leaves_the_other_lanes_running() -> None:
    scene = Scene()
    stand_in = Record("in", 0, 5, 0, None, None, (), "too large")
    scene.broker.at("fetch", fails(UnreadableError("a batch of 1 GB", stand_in)))
    scene.worker.assigned([0, 1])
    await until(lambda: {lane.phase for lane in scene.worker.lanes.values()} == {"blocked", "running"})
    problems = scene.worker.readiness_problems()
    assert (problems["batches"], problems["breaker"], problems["lanes"]) == ("a batch of 1 GB", None, None)
    assert set(scene.worker.liveness_problems().values()) == {None}
    assert await scene.worker.drain()


async def test_reassigned_partition_starts_with_a_closed_breaker() -> None:
    """Its states are kept for a while after the revocation, the counts of its breaker are not."""
    scene = Scene(*map(rubbish, range(5)), dead_letters_consecutive_max=3)
    scene.worker.assigned([0])
    await until(lambda: scene.worker.lanes[0].phase == "blocked")
    await scene.worker.revoked([0])
    await scene.serve(0)
    await until(lambda: scene.worker.lanes[0].committed_offset == 5)
    assert scene.worker.lanes[0].engine.open_reason == ""
    assert await scene.worker.drain()


async def test_states_are_read_once_they_are_complete() -> None:
    """A scrape must not count half of them; and those of a lane that opens again are still complete."""
    scene = Scene(call(0, "alerting", 1))
    released = asyncio.Event()

    async def hold() -> None:
        await released.wait()

    scene.broker.at("read", hold, hold)
    scene.worker.assigned([0])
    await until(lambda: scene.broker.last_call().startswith("read"))
    assert scene.worker.states() == {}
    released.set()
    await until(lambda: scene.worker.lanes[0].is_open)
    assert scene.worker.states() == {0: scene.worker.lanes[0].engine.states}
    scene.worker.lanes[0].phase = "failing"
    assert list(scene.worker.states()) == [0]
    await scene.worker.drain()


async def test_lane_without_progress_is_stalled() -> None:
    """The limit is the time of two commits and a request."""
    scene = Scene(call(0, "alerting", 1), drain_s=SOON_S)
    scene.broker.at("commit", wait_forever)
    await scene.serve(0)
    await until(lambda: scene.broker.last_call() == "commit 1")
    limit_s = 2 * 20.0 + 15.0
    scene.broker.clock.now_s = scene.worker.lanes[0].last_progress_s + limit_s
    assert scene.worker.liveness_problems() == {"lanes": None}
    scene.broker.clock.now_s += 0.001
    assert "partitions [0] made no progress for 55 s" in str(scene.worker.liveness_problems()["lanes"])
    assert not await scene.worker.drain()


async def test_slow_opening_progresses_with_every_answer() -> None:
    """The lane is not stalled, however long all the requests take together."""
    scene = Scene(call(0, "alerting", 1))
    liveness_problems = []

    async def take_14_s() -> None:
        liveness_problems.append(scene.worker.liveness_problems()["lanes"])
        scene.broker.clock.now_s += 14.0  # a second less than a request may take
        liveness_problems.append(scene.worker.liveness_problems()["lanes"])

    for call_name in ("member", "open", "committed", "seek", "read", "chunk"):
        scene.broker.at(call_name, take_14_s, take_14_s)
    scene.partition.logs["state"] += [Output(b"c%d" % number, None) for number in range(6)]
    scene.partition.committed = Committed(0, "")
    await scene.serve(0)
    assert set(liveness_problems) == {None}
    assert len(liveness_problems) >= 2 * 6
    assert await scene.worker.drain()


async def test_configuration_error_of_a_lane_fails_the_worker() -> None:
    scene = Scene()
    scene.broker.at("open", fails(ConfigurationError("no permission")))
    scene.worker.assigned([0])
    with pytest.raises(ConfigurationError, match="no permission"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_first_failure_of_a_worker_is_reported() -> None:
    scene = Scene()
    scene.worker.fail(ConfigurationError("no permission"))
    scene.worker.fail(ConfigurationError("another"))
    with pytest.raises(ConfigurationError, match="no permission"):
        await asyncio.wait_for(scene.worker.failure(), WAIT_S)


async def test_no_lane_opens_while_draining() -> None:
    scene = await Scene().serve(0)
    assert await scene.worker.drain()
    scene.worker.assigned([1])
    assert scene.worker.lanes == {}
    assert scene.worker.readiness_problems()["draining"] is not None


@pytest.mark.parametrize("call", ["member", "open", "committed", "seek", "commit"])
async def test_lane_cancelled_from_within_fails_the_worker(call: str) -> None:
    """A port raised CancelledError though the worker cancelled no lane."""
    scene = Scene(rubbish(0))
    scene.broker.at(call, fails(asyncio.CancelledError()))
    scene.worker.assigned([0])
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConfigurationError, match="partition 0 ended by itself"):
            await scene.worker.failure()


ROOM = 20_000
"""Memory for some of the conversations of `crowd`, and not for all."""


def crowd(partition: int = 0) -> list[Record]:
    """Each record is of another conversation."""
    records = [call(offset, "alerting", offset, f"{partition}-{offset}") for offset in range(60)]
    return [set_partition(record, partition) for record in records]


async def test_lane_stops_where_memory_for_states_ends() -> None:
    """It says why, commits what it has, and goes on once there is room; what was fetched is not read to its end."""
    scene = Scene(*crowd(), state_bytes_max=ROOM, slice_ms_max=1e-6, commit_bytes_max=1)
    scene.worker.assigned([0])
    lane = scene.worker.lanes.__getitem__
    await until(lambda: lane(0).phase == "full")
    memory = scene.worker.state_memory()
    assert ROOM <= memory.bytes < 1.6 * ROOM  # the native engine looks at the clock every few records
    assert lane(0).problem == memory.sentence
    assert lane(0).committed_offset == lane(0).next_offset == len(lane(0).engine.states) < 60
    await turns(20)
    assert (lane(0).is_open, lane(0).is_reading, scene.worker.state_memory()) == (True, False, memory)
    assert scene.worker.readiness_problems()["memory"] == memory.sentence
    assert scene.worker.readiness_problems()["lanes"] is None
    assert set(scene.worker.liveness_problems().values()) == {None}
    scene.worker._state_bytes_max = 10 * ROOM
    scene.broker.clock.now_s += 1.0
    await until(lambda: lane(0).committed_offset == 60)
    assert (lane(0).phase, lane(0).problem) == ("running", "")
    assert scene.worker.readiness_problems()["memory"] is None
    assert await scene.worker.drain()


async def test_full_lane_ends_when_it_is_asked_to() -> None:
    scene = Scene(*crowd(), state_bytes_max=ROOM, slice_ms_max=1e-6, commit_records_max=1)
    scene.worker.assigned([0])
    await until(lambda: scene.worker.lanes[0].phase == "full")
    next_offset = scene.worker.lanes[0].next_offset
    assert await scene.worker.drain()
    committed = scene.partition.committed
    assert committed is not None
    assert committed.next_offset == next_offset


async def test_restore_stops_where_memory_for_states_ends() -> None:
    scene = await Scene(*crowd()).serve(0)
    await until(lambda: scene.worker.lanes[0].committed_offset == 60)
    assert await scene.worker.drain()
    scene.worker = Worker(scene.worker._settings, scene.context, ROOM)
    scene.worker.assigned([0])
    await until(lambda: "CC_STATE_TOTAL_BYTES_MAX" in scene.worker.lanes[0].problem)
    await turns(20)
    assert scene.worker.lanes[0].phase == "opening"
    assert scene.worker.readiness_problems()["memory"] == scene.worker.lanes[0].problem
    assert set(scene.worker.liveness_problems().values()) == {None}
    scene.worker._state_bytes_max = 10 * ROOM
    scene.broker.clock.now_s += 1.0
    await until(lambda: scene.worker.lanes[0].phase == "running")
    assert scene.worker.lanes[0].problem == ""
    assert await scene.worker.drain()


async def test_states_that_are_only_kept_go_before_a_lane_stops() -> None:
    scene = await Scene(*crowd(0), *crowd(1)).serve(1)
    await until(lambda: scene.worker.lanes[1].committed_offset == 60)
    kept = scene.worker.state_memory().bytes
    await scene.worker.revoked([1])
    assert scene.worker.state_memory().bytes == kept
    scene.worker._state_bytes_max = kept + ROOM // 2
    scene.worker.assigned([0])
    await until(lambda: scene.worker.lanes[0].committed_offset == 60)
    assert scene.worker.state_memory().bytes == pytest.approx(kept, rel=0.1)
    assert await scene.worker.drain()
