"""The lag of lanes behind the ends of their partitions; a standstill is reported once by cause."""

from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from consumer.worker.commit_policy import CommitPolicy
from consumer.worker.lag_watch import LagWatch
from consumer.worker.lane import Lane
from consumer.worker.lane_status import AwaitedPartition
from consumer.worker.standstill import Lag, LogEnd, Standstill
from tests.fakes import Broker, FakeLogEnds, FakeTelemetry, lane_context
from tests.worker.scenes import call, settings_of

pytestmark = pytest.mark.usefixtures("each_engine")

UNREACHABLE = "broker 2 at kafka-2:9092 leads the partition and cannot be reached or does not answer"
WALL_MS = 1_800_000_000_000


class Scene:
    """Lanes 0 and 1 at offset 3, watched every twelve seconds."""

    def __init__(self) -> None:
        self.broker = Broker([call(0, "alerting", 1)])
        self.telemetry = FakeTelemetry()
        self.settings = settings = settings_of()
        self.context = context = lane_context(self.broker, settings, self.telemetry)
        self.policy = policy = partial(CommitPolicy.of, settings, 2)
        self.lanes = {number: Lane(number, context.new_engine(), settings, policy, context) for number in (0, 1)}
        self.positions = context.input_consumer._positions  # type: ignore[attr-defined]
        self.log_ends = FakeLogEnds(self.broker)
        for number, lane in self.lanes.items():
            lane.phase = "running"
            self.positions[number] = 3
            lane.engine.start(3, None)
            lane._ledger = lane._ledger.resume(3)
            self.log_ends.answers[number] = LogEnd(3, 3)
        self.awaited: dict[int, AwaitedPartition] = {}
        self.watch = LagWatch(
            self.lanes,
            self.awaited,
            context.input_consumer,
            self.log_ends,
            self.telemetry,
            settings,
            self.broker.clock,
            lambda: WALL_MS,
        )

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.broker.clock.now_s += 12.0
            await self.watch.look()

    def lags(self, partition: int) -> list[Lag]:
        return [lag for lagging, lag, _ in self.telemetry.of("lagging") if lagging == partition]

    def standstills(self) -> list[tuple[int, Standstill, str]]:
        return [(partition, standstill, remedy) for partition, standstill, remedy in self.telemetry.of("stands_still")]


async def test_lag_counts_records_to_the_end_of_the_log() -> None:
    scene = Scene()
    scene.log_ends.answers = {0: LogEnd(10, 10), 1: LogEnd(3, 3)}
    await scene.look()
    assert (scene.lags(0), scene.lags(1)) == ([Lag(7)], [Lag(0)])
    assert scene.lanes[0].lag_records == 7


async def test_lag_behind_an_open_transaction_has_its_age() -> None:
    scene = Scene()
    scene.log_ends.answers[0] = LogEnd(10, 5, WALL_MS - 90_000)
    await scene.look()
    assert scene.lags(0) == [Lag(7, 5, 90.0)]


async def test_only_the_partition_without_a_leader_stands_still() -> None:
    scene = Scene()
    await scene.look()
    scene.log_ends.answers[1] = UNREACHABLE
    await scene.look(4)
    assert scene.lags(1) == [Lag(0), *[Lag(None)] * 4]
    ((partition, standstill, remedy),) = scene.standstills()
    assert (partition, standstill.cause, standstill.message) == (1, "leader", UNREACHABLE)
    assert "reach it" in remedy
    assert scene.lanes[0].standstill is None
    scene.log_ends.answers[1] = LogEnd(9, 9)
    scene.positions[1] = 9
    await scene.look()
    assert scene.telemetry.of("moves_again") == [(1,)]
    assert scene.lanes[1].standstill is None


async def test_another_cause_of_a_standstill_is_reported_too() -> None:
    """As where the input is deleted, which leaves it without a leader, and created again."""
    scene = Scene()
    scene.log_ends.answers[1] = UNREACHABLE
    await scene.look(3)
    scene.log_ends.answers[1] = LogEnd(9, 9)
    await scene.look(3)
    assert [standstill.cause for _, standstill, _ in scene.standstills()] == ["leader", "unread"]
    assert len({remedy for _, _, remedy in scene.standstills()}) == 2
    assert scene.telemetry.of("moves_again") == []


async def test_remedy_of_an_open_transaction_is_the_abort_command() -> None:
    scene = Scene()
    scene.log_ends.answers[0] = LogEnd(10, 3, WALL_MS)
    await scene.look(2)
    ((_, standstill, remedy),) = scene.standstills()
    assert standstill.cause == "open_transaction"
    assert "kafka-transactions" in remedy
    assert "--partition 0 --start-offset 3`" in remedy


@pytest.mark.parametrize("phase", ["opening", "failing", "fenced", "blocked"])
async def test_lag_of_a_stopped_lane_starts_at_its_committed_offset(phase: str) -> None:
    """A lane that does not read has no position of its own."""
    scene = Scene()
    lane = scene.lanes[0]
    lane.phase = phase  # type: ignore[assignment]
    lane._failure = "reading the committed offset: TimeoutError"
    lane._ledger = lane._ledger.resume(2)
    scene.positions[0] = 10
    scene.log_ends.answers[0] = LogEnd(10, 10)
    await scene.look(2)
    assert scene.lags(0) == [Lag(8)] * 2
    ((_, standstill, _),) = scene.standstills()
    assert standstill.message.startswith("8 records wait and none is read")
    assert ("TimeoutError" in standstill.message) == (phase != "blocked")


async def test_records_that_wait_for_a_commit_are_no_standstill() -> None:
    """One of 300 lanes commits every 14 seconds."""
    scene = Scene()
    for number in range(2, 300):
        scene.lanes[number] = scene.lanes[0]
    lane = scene.lanes[0]
    lane.engine.skip_to(4)
    scene.positions[0] = 4
    scene.log_ends.answers = dict.fromkeys(scene.lanes, LogEnd(4, 4))
    scene.positions[1] = 4
    scene.lanes[1].engine.skip_to(4)
    scene.lanes[1]._ledger = scene.lanes[1]._ledger.resume(4)
    await scene.look(2)
    assert scene.standstills() == []
    await scene.look()
    assert {standstill.message for _, standstill, _ in scene.standstills()} == {"1 records are read and not committed"}


async def test_slow_restore_is_named() -> None:
    scene = Scene()
    lane = scene.lanes[0]
    lane.phase, lane.restore_records = "opening", 70_000
    scene.log_ends.answers[0] = LogEnd(10, 10)
    await scene.look(2)
    ((_, standstill, _),) = scene.standstills()
    assert "its state is restored, 70000 records are left" in standstill.message


async def test_partition_that_awaits_an_assignment_stands_still() -> None:
    """While a rebalance lasts no worker reads it; the next lane of the partition goes on with the same standstill."""
    scene = Scene()
    await scene.look()
    lane = scene.lanes.pop(0)
    scene.awaited[0] = lane.to_awaited()
    scene.log_ends.answers[0] = LogEnd(10, 10)
    await scene.look(3)
    ((partition, standstill, remedy),) = scene.standstills()
    assert (partition, standstill.cause, standstill.message) == (
        0, "unread",
        "7 records wait and none is read: the group rebalances, and not all of its members have joined again",
    )  # fmt: skip
    assert "--describe --members --group" in remedy
    assert scene.lags(0)[-1] == Lag(7)
    lane.standstill = scene.awaited.pop(0).standstill
    lane._ledger = lane._ledger.resume(10)
    scene.positions[0] = 10
    scene.lanes[0] = lane
    lane.engine.skip_to(10)
    await scene.look()
    assert scene.telemetry.of("moves_again") == [(0,)]
    assert lane.standstill is None


async def test_rebalances_on_and_on_are_no_movement() -> None:
    """Each gives the partition a new lane, and none of these gets further."""
    scene = Scene()
    await scene.look()
    scene.log_ends.answers[0] = LogEnd(10, 10)
    for _ in range(3):
        scene.awaited[0] = scene.lanes.pop(0).to_awaited()
        await scene.look()
        lane = Lane(0, scene.context.new_engine(), scene.settings, scene.policy, scene.context)
        lane.standstill = scene.awaited.pop(0).standstill
        scene.lanes[0] = lane
        await scene.look()
    assert [partition for partition, *_ in scene.standstills()] == [0]
    assert scene.telemetry.of("moves_again") == []


async def test_lane_revoked_during_the_look_is_not_reported() -> None:
    scene = Scene()

    async def find(partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        del scene.lanes[1]
        return dict.fromkeys(partitions, LogEnd(3, 3))

    scene.log_ends.find = find  # type: ignore[method-assign]
    await scene.look()
    assert [number for number, *_ in scene.telemetry.of("lagging")] == [0]
