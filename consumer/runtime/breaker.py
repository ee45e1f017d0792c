"""The dead-letter breaker: past its limits a lane stops, instead of moving a whole topic into the dead letters.

1. Once open, and what opened it is committed, it stays open for the life of the lane: only a restart, after the cause
   is gone, goes on.
2. The share is judged over windows of `window_records` records, and only when a window is full.
3. Records of a commit that failed are not counted: they come again.
"""

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.step import Outcome
from consumer.runtime.settings import Settings


class _Counts(Struct):
    in_window: int = 0
    dead_in_window: int = 0
    consecutive: int = 0
    open_because: str = ""


class Breaker:
    """Counts the dead letters of one lane."""

    def __init__(self, settings: Settings) -> None:
        self._ratio_max = settings.dead_letters_ratio_max
        self._window_records = settings.dead_letters_window_records
        self._consecutive_max = settings.dead_letters_consecutive_max
        self._counts = _Counts()
        self._committed = _Counts()

    @property
    def open_because(self) -> str:
        """Why it is open, with the setting that decided; empty while closed."""
        return self._counts.open_because

    def add(self, outcome: Outcome) -> bool:
        """Count a record; returns whether the breaker is open. Ignored records say nothing of the topic's health."""
        counts = self._counts
        if outcome.disposition == "ignored":
            return bool(counts.open_because)
        counts.in_window += 1
        if outcome.disposition == "dead_lettered":
            counts.dead_in_window += 1
            counts.consecutive += 1
            if counts.consecutive >= self._consecutive_max:
                self._open(f"{counts.consecutive} dead letters in a row", "CC_DEAD_LETTERS_CONSECUTIVE_MAX", outcome)
        else:
            counts.consecutive = 0
        if counts.in_window >= self._window_records:
            if counts.dead_in_window > self._ratio_max * counts.in_window:
                told = f"{counts.dead_in_window} dead letters in {counts.in_window} records"
                self._open(told, "CC_DEAD_LETTERS_RATIO_MAX", outcome)
            counts.in_window = counts.dead_in_window = 0
        return bool(counts.open_because)

    def commit(self) -> None:
        """What was counted is committed."""
        self._committed = replace(self._counts)

    def rollback(self) -> None:
        """The commit failed: forget what was counted since the last one."""
        self._counts = replace(self._committed)

    def _open(self, told: str, setting: str, outcome: Outcome) -> None:
        if not self._counts.open_because:
            reason = outcome.reason or "none"
            self._counts.open_because = f"{told} reached {setting}; the last reason was {reason}"
