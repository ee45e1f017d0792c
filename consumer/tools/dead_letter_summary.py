"""Dead letters by reason: how many there are, and which are the newest. Pure."""

import heapq
from collections import Counter
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from consumer.core import timestamps
from consumer.tools.redrive import DeadLetterStatus

T = TypeVar("T")


class ReasonSummary(Struct):
    """The dead letters of one reason."""

    reason: str
    letters: int = 0
    redriven: int = 0
    without_payload: int = 0
    first_ms: int = timestamps.LATEST_MS
    last_ms: int = 0
    input_partitions: Counter[int] = field(default_factory=Counter)
    """How many dead letters come from each partition of the input."""

    def add(self, status: DeadLetterStatus) -> None:
        """Count one more dead letter."""
        letter = status.letter
        self.letters += 1
        self.redriven += status.is_redriven
        self.without_payload += bool(letter.left_out)
        self.first_ms, self.last_ms = min(self.first_ms, letter.time_ms), max(self.last_ms, letter.time_ms)
        self.input_partitions[letter.original.partition] += 1

    def document(self) -> dict[str, Any]:
        """The summary as published in JSON."""
        return {
            "reason": self.reason,
            "letters": self.letters,
            "redriven": self.redriven,
            "withoutPayload": self.without_payload,
            "first": timestamps.to_text(self.first_ms),
            "last": timestamps.to_text(self.last_ms),
            "inputPartitions": sorted(self.input_partitions),
        }


class NewestByReason(Generic[T]):
    """Keeps an item for each of the newest `limit` dead letters of every reason, so that memory stays bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heaps: dict[str, list[tuple[int, int, T]]] = {}
        self._count = 0

    def add(self, status: DeadLetterStatus, item: T) -> None:
        """Keep the item, and drop that of the oldest dead letter of the reason if there are too many."""
        self._count += 1  # of two with the same time, the one that was read later counts as newer
        heap = self._heaps.setdefault(status.letter.reason, [])
        entry = (status.letter.time_ms, self._count, item)
        if len(heap) < self._limit:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def items(self) -> list[T]:
        """What is kept, the oldest first."""
        entries = sorted((entry for heap in self._heaps.values() for entry in heap), key=lambda entry: entry[:2])
        return [item for _, _, item in entries]
