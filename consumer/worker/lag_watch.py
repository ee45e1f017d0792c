"""Measures how far the lanes are from the ends of their partitions, and notices partitions that stand still.

It asks the leaders of the partitions for their ends: the last fetch shows neither that a leader is unreachable, nor
the records behind an open transaction.

A partition that was revoked is looked at as well until the group assigns partitions again: while a rebalance lasts, no
worker reads it.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Final

from consumer.kafka_commands import kafka_command
from consumer.settings import Settings
from consumer.worker.commit_policy import CommitPolicy
from consumer.worker.lane import Lane
from consumer.worker.lane_status import AwaitedPartition
from consumer.worker.ports import InputConsumer, LogEnds, Telemetry
from consumer.worker.standstill import STANDSTILL_S, Cause, Lag, LogEnd, Mark, Movement, describe_undecided

_REBALANCING: Final = "the group rebalances, and not all of its members have joined again"


class LagWatch:
    """Looks at a worker's lanes and at partitions that await an assignment; sets `lag_records` and `standstill`."""

    def __init__(
        self,
        lanes: Mapping[int, Lane],
        awaited: Mapping[int, AwaitedPartition],
        input_consumer: InputConsumer,
        log_ends: LogEnds,
        telemetry: Telemetry,
        settings: Settings,
        monotonic_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._lanes, self._awaited = lanes, awaited
        self._input_consumer = input_consumer
        self._log_ends = log_ends
        self._telemetry = telemetry
        self._settings = settings
        self._monotonic_s, self._wall_ms = monotonic_s, wall_ms
        self._movements: dict[int, Movement] = {}

    async def look(self) -> None:
        """Ask once. Takes as long as `LogEnds.find` may."""
        lanes: list[Lane | AwaitedPartition] = [*self._awaited.values(), *self._lanes.values()]
        self._movements = {
            lane.partition: self._movements.get(lane.partition) or Movement(self._monotonic_s()) for lane in lanes
        }
        if not lanes:
            return
        ends = await self._log_ends.find([lane.partition for lane in lanes])
        for lane in lanes:
            position = lane.committed_offset
            if isinstance(lane, Lane) and lane.is_reading:
                position = await self._input_consumer.position(lane.partition)
            if lane is self._lanes.get(lane.partition) or lane is self._awaited.get(lane.partition):
                self._note(lane, position, ends[lane.partition])

    def _note(self, lane: Lane | AwaitedPartition, position: int | None, end: LogEnd | str) -> None:
        next_offset, problem = lane.committed_offset, _REBALANCING
        if isinstance(lane, Lane):
            next_offset, problem = lane.next_offset, lane.problem
            if isinstance(end, LogEnd):
                lane.note_topic_id(end.topic_id)
        before = lane.standstill
        mark = Mark(position, next_offset, lane.committed_offset)
        lane.standstill = self._movements[lane.partition].note(
            mark, end, problem, self._monotonic_s(), self._standstill_s()
        )
        since_s = None if lane.standstill is None else lane.standstill.since_s
        self._telemetry.lagging(lane.partition, self._lag(lane, position, end), since_s)
        if lane.standstill is not None:
            # A cause that follows another one has a remedy of its own.
            if before is None or before.cause != lane.standstill.cause:
                self._telemetry.stands_still(
                    lane.partition, lane.standstill, self._remedy(lane, lane.standstill.cause, end)
                )
        elif before is not None:
            self._telemetry.moves_again(lane.partition)

    def _standstill_s(self) -> float:
        """How long a partition may not move: staged records wait for their commit, longer with many lanes."""
        return STANDSTILL_S + CommitPolicy.of(self._settings, len(self._lanes)).catching_up_s

    def _lag(self, lane: Lane | AwaitedPartition, position: int | None, end: LogEnd | str) -> Lag:
        if isinstance(end, str):
            return Lag(None)
        if position is not None:
            lane.lag_records = max(0, end.end - position)
        since_ms = end.open_since_ms
        undecided_s = 0.0 if since_ms is None else max(0.0, (self._wall_ms() - since_ms) / 1_000)
        return Lag(lane.lag_records, end.undecided, undecided_s)

    def _remedy(self, lane: Lane | AwaitedPartition, cause: Cause, end: LogEnd | str) -> str:
        match end:
            case str():
                return "see that the broker runs and that this worker can reach it; the other partitions go on"
            case LogEnd() if isinstance(lane, AwaitedPartition):
                members = f"--describe --members --group {shlex.quote(self._settings.group_id)}"
                command = kafka_command(self._settings, "kafka-consumer-groups", members)
                return f"restart the member that does not join again; {command} lists them"
            case LogEnd() if cause == "open_transaction":
                return describe_undecided(self._settings, lane.partition, end, self._wall_ms())[1]
            case _:
                return (
                    "see the reason in `message`; if it has none, see whether a quota of the brokers throttles this "
                    "client (CC_GROUP_ID) or its user, else restart the worker"
                )
