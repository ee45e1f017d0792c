"""The overview of one worker: what is live by medium and state, the lanes, the latest operations, and trends."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from consumer.core.lifecycle import LIVE, RANKS
from consumer.query.parts import LETTERS_MAX, OPERATIONS_MAX, Operation, OverviewPart, RecentPart, limit_rows
from consumer.query.recent_activity import EncodedOperation, RecentActivity
from consumer.query.trends import Trends
from consumer.worker.lane_status import AwaitedPartition, LaneStatus
from consumer.worker.worker import Outage
from schemas.query import DeadLetterCount, LaneView, LiveCommunication, LiveCount
from schemas.transition import Transition

_OPERATION = msgspec.json.Decoder(Transition)


class OverviewReader:
    """Reads the overview from the lanes of this worker. `address` is what it advertises, empty if nothing."""

    def __init__(
        self,
        lanes: Mapping[int, LaneStatus],
        recent_activity: RecentActivity,
        outage: Callable[[], Outage | None] = lambda: None,
        awaited: Mapping[int, AwaitedPartition] | None = None,
        address: Callable[[], str] = str,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._lanes = lanes
        self._awaited = {} if awaited is None else awaited
        self._recent_activity = recent_activity
        self._outage = outage
        self._address = address
        self.trends = Trends(recent_activity, self._lag_records, lambda: outage() is not None, wall_ms)

    def outage_since_ms(self) -> int | None:
        """Since when nothing comes from Kafka, in epoch milliseconds; None while the overview is up to date."""
        outage = self._outage()
        return None if outage is None else outage.since_ms

    def read(self, generation: int, oldest: list[LiveCommunication]) -> OverviewPart:
        """The overview as of now. Only lanes that are open are counted: until then their states may be old."""
        counts: Counter[tuple[str, str]] = Counter()
        counted = [lane for lane in self._lanes.values() if lane.is_open]
        for lane in counted:
            for (media, state), count in lane.engine.states.live_index.states.items():
                if RANKS.get(state, LIVE) <= LIVE:
                    counts[media, state] += count
        lanes: list[LaneStatus | AwaitedPartition] = [*self._awaited.values(), *self._lanes.values()]
        return OverviewPart(
            generation=generation,
            partitions=sorted(lane.partition for lane in counted),
            live=limit_rows(
                [
                    LiveCount(media, state, count)  # type: ignore[arg-type]  # the index holds media only
                    for (media, state), count in counts.items()
                    if count > 0
                ]
            ),
            lanes=[self._view(lane) for lane in sorted(lanes, key=lambda lane: lane.partition)],
            operations=_decode_latest(self._recent_activity.operations),
            dead_letters=[
                DeadLetterCount(reason, count) for reason, count in self._recent_activity.dead_letters.most_common()
            ],
            letters=list(self._recent_activity.letters)[-LETTERS_MAX:][::-1],
            oldest=oldest,
            trend=self.trends.read(),
        )

    def read_recent(self, conversation_id: str) -> RecentPart:
        """What this worker published of a conversation lately."""
        activity = self._recent_activity
        operations = (one for one in activity.operations if one.conversation_id == conversation_id)
        letters = (letter for letter in reversed(activity.letters) if letter.conversation_id == conversation_id)
        return RecentPart(_decode_latest(operations), list(letters))

    def _lag_records(self) -> int:
        """How many records of all partitions wait, those that await an assignment included."""
        lanes: list[LaneStatus | AwaitedPartition] = [*self._awaited.values(), *self._lanes.values()]
        return sum(lane.lag_records or 0 for lane in lanes)

    def _view(self, lane: LaneStatus | AwaitedPartition) -> LaneView:
        standstill = lane.standstill.message if lane.standstill else None
        if isinstance(lane, AwaitedPartition):
            phase, conversations, restore_records, problem = "rebalancing", 0, None, standstill
        else:
            phase, conversations, restore_records = lane.phase, len(lane.engine.states), lane.restore_records
            problem = (standstill or lane.engine.open_reason) or None
        return LaneView(
            partition=lane.partition,
            worker=self._address() or None,
            phase=phase,
            conversations=conversations,
            lag_records=lane.lag_records,
            restore_records=restore_records,
            problem=problem,
        )


def _decode_latest(operations: Iterable[EncodedOperation]) -> list[Operation]:
    """The last `OPERATIONS_MAX`, the latest first."""
    latest = list(operations)[-OPERATIONS_MAX:][::-1]
    return [Operation(operation.committed_ms, _OPERATION.decode(operation.value)) for operation in latest]
