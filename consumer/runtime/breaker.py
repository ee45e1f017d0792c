"""The dead-letter breaker: past its limits a lane stops, instead of moving a whole topic into the dead letters.

1. Once open it stays open for the life of the lane: only a restart, after the cause is gone, goes on.
2. The share is judged over windows of `window_records` records, and only when a window is full.
"""

from consumer.core.step import Outcome
from consumer.runtime.settings import Settings


class Breaker:
    """Counts the dead letters of one lane."""

    def __init__(self, settings: Settings) -> None:
        self._ratio_max = settings.dead_letters_ratio_max
        self._window_records = settings.dead_letters_window_records
        self._consecutive_max = settings.dead_letters_consecutive_max
        self._in_window = 0
        self._dead_in_window = 0
        self._consecutive = 0
        self.open_because = ""
        """Why it is open, with the setting that decided; empty while closed."""

    def add(self, outcome: Outcome) -> bool:
        """Count a record; returns whether the breaker is open. Ignored records say nothing of the topic's health."""
        if outcome.disposition == "ignored":
            return bool(self.open_because)
        self._in_window += 1
        if outcome.disposition == "dead_lettered":
            self._dead_in_window += 1
            self._consecutive += 1
            if self._consecutive >= self._consecutive_max:
                self._open(f"{self._consecutive} dead letters in a row", "CC_DEAD_LETTERS_CONSECUTIVE_MAX", outcome)
        else:
            self._consecutive = 0
        if self._in_window >= self._window_records:
            if self._dead_in_window > self._ratio_max * self._in_window:
                told = f"{self._dead_in_window} dead letters in {self._in_window} records"
                self._open(told, "CC_DEAD_LETTERS_RATIO_MAX", outcome)
            self._in_window = self._dead_in_window = 0
        return bool(self.open_because)

    def _open(self, told: str, setting: str, outcome: Outcome) -> None:
        if not self.open_because:
            self.open_because = f"{told} reached {setting}; the last reason was {outcome.reason or 'none'}"
