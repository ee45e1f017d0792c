"""The overview of the live page: what is live by medium and state, the lanes, and the latest operations."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from consumer.core.lifecycle import LIVE, RANKS
from consumer.query.recent_activity import Operation, RecentActivity
from consumer.worker.lane import AwaitedPartition, Lane
from consumer.worker.worker import Outage
from schemas.transition import Transition

_OPERATIONS_MAX = 30
_LIVE_ROWS_MAX = 128
"""More than there are live states in all media. Records may name any state: the others count as `other`."""
_OPERATION = msgspec.json.Decoder(Transition)


class LaneRow(Struct, frozen=True):
    """A row in the table of lanes. None for what the lane does not know (yet)."""

    partition: int
    phase: str
    conversations: int
    lag_records: int | None
    restore_records: int | None
    """How many are left to restore."""
    problem: str | None


class Overview(Struct, frozen=True):
    """The worker at one moment."""

    live: list[tuple[str, str, int]]
    """Medium, state and number of communications; the largest number first, and at the end what is too rare to list."""
    lanes: list[LaneRow]
    operations: list[Transition]
    """The latest first."""
    dead_letters: list[tuple[str, int]]
    """Reason and number since the worker started; the largest number first."""


class OverviewReader:
    """Reads the overview from the lanes of this worker."""

    def __init__(
        self,
        lanes: Mapping[int, Lane],
        recent_activity: RecentActivity,
        outage: Callable[[], Outage | None] = lambda: None,
        awaited: Mapping[int, AwaitedPartition] | None = None,
    ) -> None:
        self._lanes = lanes
        self._awaited = {} if awaited is None else awaited
        self._recent_activity = recent_activity
        self._outage = outage

    def outage_since_ms(self) -> int | None:
        """Since when nothing comes from Kafka, in epoch milliseconds; None while the overview is up to date."""
        outage = self._outage()
        return None if outage is None else outage.since_ms

    def read(self) -> Overview:
        """The overview as of now."""
        counts: Counter[tuple[str, str]] = Counter()
        for lane in self._lanes.values():
            for (media, state), count in lane.engine.states.live_index.states.items():
                if RANKS.get(state, LIVE) <= LIVE:
                    counts[media, state] += count
        lanes: list[Lane | AwaitedPartition] = [*self._awaited.values(), *self._lanes.values()]
        rows = [_row(lane) for lane in sorted(lanes, key=lambda lane: lane.partition)]
        return Overview(
            _limit([(media, state, count) for (media, state), count in counts.most_common() if count > 0]),
            rows,
            _decode_latest(self._recent_activity.operations),
            self._recent_activity.dead_letters.most_common(),
        )

    def operations_on(self, conversation_id: str) -> list[Transition]:
        """The latest published operations of a conversation, the latest first."""
        return _decode_latest(
            operation for operation in self._recent_activity.operations if operation.conversation_id == conversation_id
        )


def _limit(live: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """The first rows, and for the others one row a medium."""
    others: Counter[str] = Counter()
    for media, _, count in live[_LIVE_ROWS_MAX:]:
        others[media] += count
    return live[:_LIVE_ROWS_MAX] + [(media, "other", count) for media, count in others.most_common()]


def _row(lane: Lane | AwaitedPartition) -> LaneRow:
    if isinstance(lane, AwaitedPartition):
        problem = lane.standstill.message if lane.standstill else None
        return LaneRow(lane.partition, "rebalancing", 0, lane.lag_records, None, problem)
    problem = (lane.standstill.message if lane.standstill else lane.engine.open_reason) or None
    return LaneRow(lane.partition, lane.phase, len(lane.engine.states), lane.lag_records, lane.restore_records, problem)


def _decode_latest(operations: Iterable[Operation]) -> list[Transition]:
    """The last `_OPERATIONS_MAX`, the latest first."""
    return [_OPERATION.decode(operation.value) for operation in list(operations)[-_OPERATIONS_MAX:][::-1]]
