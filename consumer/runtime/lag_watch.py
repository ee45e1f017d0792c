"""Watching how far the lanes are from the ends of their partitions, and whether they move.

The ends are asked of the brokers that lead the partitions: the last fetch does not show that a leader is unreachable,
nor the records behind an open transaction.
"""

from collections.abc import Callable, Mapping

from consumer.runtime.commit_policy import CommitPolicy
from consumer.runtime.lane import Lane
from consumer.runtime.ports import Intake, LogEnds, Telemetry
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import STANDSTILL_S, Cause, Lag, LogEnd, Mark, Movement, describe_undecided


class LagWatch:
    """Looks at all lanes of a worker; what it finds of each is in its `lag_records` and `standstill`."""

    def __init__(
        self,
        lanes: Mapping[int, Lane],
        intake: Intake,
        log_ends: LogEnds,
        telemetry: Telemetry,
        settings: Settings,
        monotonic_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._lanes = lanes
        self._intake = intake
        self._log_ends = log_ends
        self._telemetry = telemetry
        self._settings = settings
        self._monotonic_s, self._wall_ms = monotonic_s, wall_ms
        self._movements: dict[Lane, Movement] = {}

    async def look(self) -> None:
        """Ask once. Takes as long as `LogEnds.find` may."""
        lanes = list(self._lanes.values())
        self._movements = {lane: self._movements.get(lane) or Movement(self._monotonic_s()) for lane in lanes}
        if not lanes:
            return
        ends = await self._log_ends.find([lane.partition for lane in lanes])
        for lane in lanes:
            position = await self._intake.position(lane.partition) if lane.is_reading else lane.committed_offset
            if self._lanes.get(lane.partition) is lane:
                self._note(lane, position, ends[lane.partition])

    def _note(self, lane: Lane, position: int | None, end: LogEnd | str) -> None:
        if isinstance(end, LogEnd):
            lane.note_topic_id(end.topic_id)
        self._telemetry.lagging(lane.partition, self._lag(lane, position, end))
        was_still = lane.standstill is not None
        mark = Mark(position, lane.next_offset, lane.committed_offset)
        lane.standstill = self._movements[lane].note(mark, end, lane.problem, self._monotonic_s(), self._patience_s())
        if lane.standstill is not None and not was_still:
            self._telemetry.stands_still(lane.partition, lane.standstill, self._todo(lane, lane.standstill.cause, end))
        elif was_still and lane.standstill is None:
            self._telemetry.moves_again(lane.partition)

    def _patience_s(self) -> float:
        """What is staged may wait for its commit: with many lanes, or by CC_COMMIT_INTERVAL_MS, longer than others."""
        return STANDSTILL_S + CommitPolicy.of(self._settings, len(self._lanes)).catching_up_s

    def _lag(self, lane: Lane, position: int | None, end: LogEnd | str) -> Lag:
        if isinstance(end, str):
            return Lag(None)
        if position is not None:
            lane.lag_records = max(0, end.end - position)
        since_ms = end.open_since_ms
        undecided_s = 0.0 if since_ms is None else max(0.0, (self._wall_ms() - since_ms) / 1_000)
        return Lag(lane.lag_records, end.undecided, undecided_s)

    def _todo(self, lane: Lane, cause: Cause, end: LogEnd | str) -> str:
        match end:
            case str():
                return "see that the broker runs and that this worker can reach it; the other partitions go on"
            case LogEnd() if cause == "open_transaction":
                return describe_undecided(self._settings, lane.partition, end, self._wall_ms())[1]
            case _:
                return "see the reason in `found`; if it has none, restart the worker"
