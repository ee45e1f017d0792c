"""Lanes against the ends of their partitions: lag, and each standstill reported once."""

from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from consumer.runtime.commit_policy import CommitPolicy
from consumer.runtime.lag_watch import LagWatch
from consumer.runtime.lane import Lane
from consumer.runtime.standstill import Lag, LogEnd, Standstill
from consumer.runtime.state_store import StateStore
from tests.fakes import Broker, FakeTelemetry, world_of
from tests.runtime.scenes import call, settings_of

UNREACHABLE = "broker 2 at kafka-2:9092 leads the partition and cannot be reached or does not answer"
WALL_MS = 1_800_000_000_000


class FakeLogEnds:
    """Leaders that say what a test wants."""

    def __init__(self) -> None:
        self.ends: dict[int, LogEnd | str] = {}

    async def find(self, partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        return {partition: self.ends[partition] for partition in partitions}


class Scene:
    """Lanes 0 and 1 at offset 3, watched every twelve seconds."""

    def __init__(self) -> None:
        self.broker = Broker([call(0, "alerting", 1)])
        self.telemetry = FakeTelemetry()
        world = world_of(self.broker, self.telemetry)
        settings = settings_of()
        policy = partial(CommitPolicy.of, settings, 2)
        self.lanes = {number: Lane(number, StateStore(settings.rules()), settings, policy, world) for number in (0, 1)}
        self.positions = world.intake._positions  # type: ignore[attr-defined]
        self.log_ends = FakeLogEnds()
        for number, lane in self.lanes.items():
            lane.phase = "running"
            self.positions[number] = lane._staging.next_offset = lane.committed_offset = 3
            self.log_ends.ends[number] = LogEnd(3, 3)
        self.watch = LagWatch(
            self.lanes, world.intake, self.log_ends, self.telemetry, settings, self.broker.clock, lambda: WALL_MS
        )

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.broker.clock.now_s += 12.0
            await self.watch.look()

    def lags(self, partition: int) -> list[Lag]:
        return [lag for number, lag in self.telemetry.of("lagging") if number == partition]

    def standstills(self) -> list[tuple[int, Standstill, str]]:
        return [(number, standstill, todo) for number, standstill, todo in self.telemetry.of("stands_still")]


async def test_lag_is_what_is_left_to_the_end_of_the_log() -> None:
    scene = Scene()
    scene.log_ends.ends = {0: LogEnd(10, 10), 1: LogEnd(3, 3)}
    await scene.look()
    assert (scene.lags(0), scene.lags(1)) == ([Lag(7)], [Lag(0)])
    assert scene.lanes[0].lag_records == 7


async def test_what_an_open_transaction_holds_back_is_counted_with_its_age() -> None:
    scene = Scene()
    scene.log_ends.ends[0] = LogEnd(10, 5, WALL_MS - 90_000)
    await scene.look()
    assert scene.lags(0) == [Lag(7, 5, 90.0)]


async def test_partition_whose_leader_is_out_of_reach_stands_still_alone() -> None:
    scene = Scene()
    await scene.look()
    scene.log_ends.ends[1] = UNREACHABLE
    await scene.look(4)
    assert scene.lags(1) == [Lag(0), *[Lag(None)] * 4]
    ((partition, standstill, todo),) = scene.standstills()
    assert (partition, standstill.cause, standstill.found) == (1, "leader", UNREACHABLE)
    assert "reach it" in todo
    assert scene.lanes[0].standstill is None
    scene.log_ends.ends[1] = LogEnd(9, 9)
    scene.positions[1] = 9
    await scene.look()
    assert scene.telemetry.of("moves_again") == [(1,)]
    assert scene.lanes[1].standstill is None


async def test_remedy_of_an_open_transaction_is_the_command_that_aborts_it() -> None:
    scene = Scene()
    scene.log_ends.ends[0] = LogEnd(10, 3, WALL_MS)
    await scene.look(2)
    ((_, standstill, todo),) = scene.standstills()
    assert standstill.cause == "open_transaction"
    assert "kafka-transactions" in todo
    assert "--partition 0 --start-offset 3`" in todo


@pytest.mark.parametrize("phase", ["opening", "failing", "fenced", "blocked"])
async def test_lane_that_does_not_read_is_measured_from_its_committed_offset(phase: str) -> None:
    scene = Scene()
    lane = scene.lanes[0]
    lane.phase = phase  # type: ignore[assignment]
    lane._failure = "reading the committed offset: TimeoutError"
    lane.committed_offset, scene.positions[0] = 2, 10
    scene.log_ends.ends[0] = LogEnd(10, 10)
    await scene.look(2)
    assert scene.lags(0) == [Lag(8)] * 2
    ((_, standstill, _),) = scene.standstills()
    assert standstill.found.startswith("8 records wait and none is read")
    assert ("TimeoutError" in standstill.found) == (phase != "blocked")


async def test_what_waits_for_its_commit_is_no_standstill() -> None:
    """With 300 lanes each commits every 14 seconds."""
    scene = Scene()
    for number in range(2, 300):
        scene.lanes[number] = scene.lanes[0]
    lane = scene.lanes[0]
    lane._staging.next_offset = scene.positions[0] = 4
    scene.log_ends.ends = dict.fromkeys(scene.lanes, LogEnd(4, 4))
    scene.positions[1] = scene.lanes[1]._staging.next_offset = scene.lanes[1].committed_offset = 4
    await scene.look(2)
    assert scene.standstills() == []
    await scene.look()
    assert {standstill.found for _, standstill, _ in scene.standstills()} == {"1 records are read and not committed"}


async def test_slow_restore_is_named() -> None:
    scene = Scene()
    lane = scene.lanes[0]
    lane.phase, lane.restore_records = "opening", 70_000
    scene.log_ends.ends[0] = LogEnd(10, 10)
    await scene.look(2)
    ((_, standstill, _),) = scene.standstills()
    assert "its state is restored, 70000 records are left" in standstill.found


async def test_lane_that_is_given_up_meanwhile_is_not_told_of() -> None:
    scene = Scene()

    async def find(partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        del scene.lanes[1]
        return dict.fromkeys(partitions, LogEnd(3, 3))

    scene.log_ends.find = find  # type: ignore[method-assign]
    await scene.look()
    assert [number for number, _ in scene.telemetry.of("lagging")] == [0]
