"""The worker at a glance, for people: what is live by medium and state, the lanes, the latest operations."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from consumer.core.lifecycle import LIVE, RANKS
from consumer.runtime.feed import Feed, Operation
from consumer.runtime.lane import Lane
from consumer.runtime.worker import Outage
from schemas.transition import Transition

_SHOWN = 30
_OPERATION = msgspec.json.Decoder(Transition)


class LaneRow(Struct, frozen=True):
    """A lane as it is shown. What it does not know (yet) is None."""

    partition: int
    phase: str
    conversations: int
    lag_records: int | None
    restore_records: int | None
    """Left to restore."""
    problem: str | None


class Glance(Struct, frozen=True):
    """Everything at one moment."""

    live: list[tuple[str, str, int]]
    """Media, states and how many communications, most first."""
    lanes: list[LaneRow]
    operations: list[Transition]
    """The latest first."""
    dead_letters: list[tuple[str, int]]
    """Reasons and how many since the worker started, most first."""


class Board:
    """Reads the worker."""

    def __init__(
        self, lanes: Mapping[int, Lane], feed: Feed, outage: Callable[[], Outage | None] = lambda: None
    ) -> None:
        self._lanes = lanes
        self._feed = feed
        self._outage = outage

    def outage_since_ms(self) -> int | None:
        """How old what is shown is, where nothing comes from Kafka: epoch milliseconds. None while it is up to date."""
        outage = self._outage()
        return None if outage is None else outage.since_ms

    def glance(self) -> Glance:
        """The worker now."""
        counts: Counter[tuple[str, str]] = Counter()
        for lane in self._lanes.values():
            for (media, state), count in lane.store.census.states.items():
                if RANKS.get(state, LIVE) <= LIVE:
                    counts[media, state] += count
        lanes = [_row(self._lanes[partition]) for partition in sorted(self._lanes)]
        return Glance(
            [(media, state, count) for (media, state), count in counts.most_common() if count > 0],
            lanes,
            _latest(self._feed.operations),
            self._feed.dead_letters.most_common(),
        )

    def operations_on(self, conversation_id: str) -> list[Transition]:
        """What was lately published of a conversation, the latest first."""
        return _latest(each for each in self._feed.operations if each.conversation_id == conversation_id)


def _row(lane: Lane) -> LaneRow:
    problem = (lane.standstill.found if lane.standstill else lane.breaker.open_because) or None
    return LaneRow(lane.partition, lane.phase, len(lane.store), lane.lag_records, lane.restore_records, problem)


def _latest(operations: Iterable[Operation]) -> list[Transition]:
    """As many as are shown, the latest first."""
    return [_OPERATION.decode(each.value) for each in list(operations)[-_SHOWN:][::-1]]
