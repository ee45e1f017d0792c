"""What one worker answers for its own partitions, and how the answers of several add up.

1. A part counts the partitions whose lanes are open in one generation of the group, and no others. Within a generation
   a partition has one owner, so parts of the same generation add up.
2. Parts add up in any order, and a sum is a part again: no larger than the page that was asked for.
"""

import heapq
from collections import Counter
from typing import Final, Protocol, Self

from msgspec import Struct

from consumer.query.live_search import Position
from consumer.query.recent_activity import RecentLetter
from consumer.query.trends import Sample, add_up
from schemas.query import DeadLetterCount, LaneView, LiveCommunication, LiveCount
from schemas.state import Media
from schemas.transition import Transition

OTHER: Final = "other"
OPERATIONS_MAX: Final = 30
LETTERS_MAX: Final = 10
OLDEST_MAX: Final = 10
LIVE_ROWS_MAX: Final = 128
"""More than there are live states in all media. Records may name any state: the others count as `other`."""


class Part(Protocol):
    """An answer for some partitions."""

    @property
    def generation(self) -> int:
        """The generation of the group in which the worker owned them; below 0 if it is no member."""

    @property
    def partitions(self) -> list[int]:
        """Those that are counted, sorted."""

    def add(self, other: Self) -> Self:
        """The sum with a part of the same generation that counts other partitions."""


class Operation(Struct, frozen=True):
    """A published operation on a transition, and when its worker committed it, in epoch milliseconds."""

    committed_ms: int
    transition: Transition


class LivePart(Struct, frozen=True):
    """A page of live communications."""

    generation: int
    partitions: list[int]
    items: list[LiveCommunication]
    """In order, at most `limit`."""
    end: Position | None
    """Up to where `items` has all that match; None for all of them."""
    limit: int

    def add(self, other: "LivePart") -> "LivePart":
        """See `Part.add`. What lies beyond the end of either is left for the next page."""
        end = min((end for end in (self.end, other.end) if end is not None), default=None)
        merged = heapq.merge(self.items, other.items, key=position_of)
        items = [item for item in merged if end is None or position_of(item) <= end]
        if len(items) > self.limit:
            items = items[: self.limit]
            end = position_of(items[-1])
        return LivePart(self.generation, sorted([*self.partitions, *other.partitions]), items, end, self.limit)


class RecentPart(Struct, frozen=True):
    """What a worker published of one conversation lately."""

    operations: list[Operation]
    """The latest first, at most `OPERATIONS_MAX`."""
    letters: list[RecentLetter]
    """The latest first."""


class OverviewPart(Struct, frozen=True, kw_only=True):
    """An overview."""

    generation: int
    partitions: list[int]
    live: list[LiveCount]
    lanes: list[LaneView]
    operations: list[Operation]
    """The latest first, at most `OPERATIONS_MAX`."""
    dead_letters: list[DeadLetterCount]
    letters: list[RecentLetter]
    """The latest first, at most `LETTERS_MAX`."""
    oldest: list[LiveCommunication]
    """The oldest live communications, at most `OLDEST_MAX`."""
    trend: list[Sample]

    def add(self, other: "OverviewPart") -> "OverviewPart":
        """See `Part.add`."""
        live: dict[tuple[str, str], LiveCount] = {}
        for count in (*self.live, *other.live):
            before = live.get((count.media, count.state))
            total = count.count + (0 if before is None else before.count)
            live[count.media, count.state] = LiveCount(count.media, count.state, total)
        dead: dict[str, int] = {}
        for counted in (*self.dead_letters, *other.dead_letters):
            dead[counted.reason] = dead.get(counted.reason, 0) + counted.count
        operations = heapq.merge(self.operations, other.operations, key=lambda o: o.committed_ms, reverse=True)
        letters = heapq.merge(self.letters, other.letters, key=lambda letter: letter.committed_ms, reverse=True)
        return OverviewPart(
            generation=self.generation,
            partitions=sorted([*self.partitions, *other.partitions]),
            live=limit_rows(list(live.values())),
            lanes=sorted([*self.lanes, *other.lanes], key=lambda lane: lane.partition),
            operations=list(operations)[:OPERATIONS_MAX],
            dead_letters=[
                DeadLetterCount(reason, count) for reason, count in sorted(dead.items(), key=lambda item: -item[1])
            ],
            letters=list(letters)[:LETTERS_MAX],
            oldest=list(heapq.merge(self.oldest, other.oldest, key=position_of))[:OLDEST_MAX],
            trend=add_up(self.trend, other.trend),
        )


NO_OVERVIEW: Final = OverviewPart(
    generation=-1, partitions=[], live=[], lanes=[], operations=[], dead_letters=[], letters=[], oldest=[], trend=[]
)


def limit_rows(live: list[LiveCount]) -> list[LiveCount]:
    """The rows with the largest numbers, the largest first, and for all others one row a medium at the end."""
    ordered = sorted(live, key=lambda count: (count.state == OTHER, -count.count))
    others: Counter[Media] = Counter()
    for count in ordered[LIVE_ROWS_MAX:]:
        others[count.media] += count.count
    return ordered[:LIVE_ROWS_MAX] + [LiveCount(media, OTHER, count) for media, count in others.most_common()]


def position_of(item: LiveCommunication) -> Position:
    """The place of a communication in the order of pages."""
    return item.since, item.conversation_id, item.media, item.participant_id, item.communication_id or ""
