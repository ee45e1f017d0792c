"""Short histories of lag, delay, dead letters and corrections, which add up over the workers.

1. A sample stands for a slot of the wall clock, so that the samples of several workers are of the same times.
2. A worker keeps `SAMPLES_MAX` of them, in memory: a history begins with its worker.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from consumer.query.recent_activity import RecentActivity

SLOT_MS: Final = 5_000
SAMPLES_MAX: Final = 120
"""Ten minutes."""


class Sample(Struct, frozen=True):
    """What was measured at the end of a slot, or counted during it."""

    slot: int
    """Epoch milliseconds divided by `SLOT_MS`."""
    lag_records: int = 0
    delay_ms: int = 0
    """How old records were at most when they were processed; it grows while records wait and none is processed."""
    dead_letters: int = 0
    corrections: int = 0


class Trends:
    """The history of one worker. `lag_records` and `is_cut_off` say how far it is behind and whether Kafka is gone."""

    def __init__(
        self,
        recent_activity: RecentActivity,
        lag_records: Callable[[], int],
        is_cut_off: Callable[[], bool],
        wall_ms: Callable[[], int],
    ) -> None:
        self._recent_activity = recent_activity
        self._lag_records = lag_records
        self._is_cut_off = is_cut_off
        self._wall_ms = wall_ms
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._counted = (0, 0)
        """Dead letters and corrections that samples hold."""
        self._delay_ms = 0
        self._measured_ms = wall_ms()

    def sample(self) -> None:
        """Take a sample: to be called once a slot."""
        now_ms = self._wall_ms()
        lag_records = self._lag_records()
        slowest_ms = self._recent_activity.take_slowest_ms()
        if slowest_ms is not None:
            self._delay_ms = slowest_ms
        elif lag_records or self._is_cut_off():
            self._delay_ms += max(0, now_ms - self._measured_ms)
        else:
            self._delay_ms = 0
        self._measured_ms = now_ms
        dead_letters, corrections = self._recent_activity.dead_letters.total(), self._recent_activity.corrections
        before, self._counted = self._counted, (dead_letters, corrections)
        self._samples.append(
            Sample(now_ms // SLOT_MS, lag_records, self._delay_ms, dead_letters - before[0], corrections - before[1])
        )

    def seconds_to_next(self) -> float:
        """How long it is to the middle of the next slot: a turn of the loop that comes late misses no slot."""
        return (1.5 * SLOT_MS - self._wall_ms() % SLOT_MS) / 1_000

    def read(self) -> list[Sample]:
        """The samples, the oldest first."""
        return list(self._samples)


def add_up(*histories: Iterable[Sample]) -> list[Sample]:
    """The history of several workers, the oldest first, at most `SAMPLES_MAX`: sums, and the longest delay."""
    sums: dict[int, Sample] = {}
    for history in histories:
        for sample in history:
            other = sums.get(sample.slot, Sample(sample.slot))
            sums[sample.slot] = Sample(
                sample.slot,
                sample.lag_records + other.lag_records,
                max(sample.delay_ms, other.delay_ms),
                sample.dead_letters + other.dead_letters,
                sample.corrections + other.corrections,
            )
    return [sums[slot] for slot in sorted(sums)][-SAMPLES_MAX:]
