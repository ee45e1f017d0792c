"""The dead-letter breaker: past its limits a lane stops, instead of moving a whole topic into the dead letters.

1. Once open, and what opened it is committed, it stays open for the life of the lane: only a restart, after the cause
   is gone, goes on.
2. It counts conversations, not records: an endless one that cannot be used is no broken input. A dead letter counts
   for the conversation that it names, else for its key. Without either it counts as one of its own, so that a topic of
   rubbish without keys opens the breaker as well; rubbish under one and the same key does not.
3. `too_large` and `late` say something of one conversation, or of arrival, and nothing of what writes the input.
   Like ignored records they do not count.
4. The share is judged over windows of `window_records` records, and only when a window is full. Each conversation has
   one vote, divided by how many of its records were dead letters; a few conversations that have any decide nothing.
5. Records of a commit that failed are not counted: they come again.
6. Of conversations only hashes are kept, at most as many as a window has records and a row has conversations.
"""

from typing import Final

from msgspec import Struct, field

from consumer.core.step import Outcome
from consumer.runtime.settings import Settings

_OF_ONE_CONVERSATION: Final = frozenset({"too_large", "late"})
_FEW: Final = 0.01
"""Of the records of a window: in how many conversations there have to be dead letters for the share to matter."""
_FEW_LEAST: Final = 2


class _Counts(Struct):
    in_window: int = 0
    nameless_in_window: int = 0
    """Dead letters that name no conversation."""
    records: dict[int, int] = field(default_factory=dict)
    """In the window: records of each conversation, by its hash."""
    dead: dict[int, int] = field(default_factory=dict)
    """In the window: dead letters of each conversation that has any."""
    in_row: set[int] = field(default_factory=set)
    """Conversations of the dead letters since the last record that was none."""
    nameless_in_row: int = 0
    open_because: str = ""

    def copy(self) -> "_Counts":
        """The same counts, which change on their own."""
        return _Counts(
            self.in_window,
            self.nameless_in_window,
            self.records.copy(),
            self.dead.copy(),
            self.in_row.copy(),
            self.nameless_in_row,
            self.open_because,
        )


class Breaker:
    """Counts the conversations of the dead letters of one lane."""

    def __init__(self, settings: Settings) -> None:
        self._ratio_max = settings.dead_letters_ratio_max
        self._window_records = settings.dead_letters_window_records
        self._consecutive_max = settings.dead_letters_consecutive_max
        self._few = min(self._window_records, max(_FEW_LEAST, int(self._window_records * _FEW)))
        self._counts = _Counts()
        self._committed = _Counts()

    @property
    def open_because(self) -> str:
        """Why it is open, with the setting that decided; empty while closed."""
        return self._counts.open_because

    def add(self, outcome: Outcome) -> bool:
        """Count a record; returns whether the breaker is open."""
        counts = self._counts
        if counts.open_because or outcome.disposition == "ignored" or outcome.reason in _OF_ONE_CONVERSATION:
            return bool(counts.open_because)
        conversation = outcome.conversation_id or outcome.named
        number = hash(conversation)
        counts.in_window += 1
        if conversation:
            counts.records[number] = counts.records.get(number, 0) + 1
        if outcome.disposition == "dead_lettered":
            self._add_dead(number if conversation else None, outcome.reason)
        elif counts.in_row or counts.nameless_in_row:
            counts.in_row.clear()
            counts.nameless_in_row = 0
        if counts.in_window >= self._window_records:
            self._judge_window(outcome.reason)
        return bool(counts.open_because)

    def commit(self) -> None:
        """What was counted is committed."""
        self._committed = self._counts.copy()

    def rollback(self) -> None:
        """The commit failed: forget what was counted since the last one."""
        self._counts = self._committed.copy()

    def _add_dead(self, conversation: int | None, reason: str) -> None:
        counts = self._counts
        if conversation is None:
            counts.nameless_in_window += 1
            counts.nameless_in_row += 1
        else:
            counts.dead[conversation] = counts.dead.get(conversation, 0) + 1
            counts.in_row.add(conversation)
        in_row = len(counts.in_row) + counts.nameless_in_row
        if in_row >= self._consecutive_max:
            self._open(f"dead letters of {in_row} conversations in a row", "CC_DEAD_LETTERS_CONSECUTIVE_MAX", reason)

    def _judge_window(self, reason: str) -> None:
        """The window is full: open if too much of it was dead letters, and begin the next one."""
        counts = self._counts
        with_dead = len(counts.dead) + counts.nameless_in_window
        conversations = len(counts.records) + counts.nameless_in_window
        votes = sum(
            [dead / counts.records[conversation] for conversation, dead in counts.dead.items()],
            counts.nameless_in_window,
        )
        if with_dead >= self._few and votes > self._ratio_max * conversations:
            found = f"dead letters of {with_dead} out of {conversations} conversations in {counts.in_window} records"
            self._open(found, "CC_DEAD_LETTERS_RATIO_MAX", reason)
        counts.in_window = counts.nameless_in_window = 0
        counts.records.clear()
        counts.dead.clear()

    def _open(self, found: str, setting: str, reason: str) -> None:
        if not self._counts.open_because:
            self._counts.open_because = f"{found} reached {setting}; the last reason was {reason or 'none'}"
