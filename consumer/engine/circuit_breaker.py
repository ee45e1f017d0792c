"""The dead-letter breaker: past its limits a lane stops, instead of moving a whole topic into the dead letters.

1. Once it is open, and what opened it is committed, it stays open for the life of the lane. Fix the cause and restart
   the worker.
2. It counts conversations and not records: one endless conversation that cannot be used does not mean that the input
   is broken. A dead letter counts for the conversation that it names, else for its key. Without either it counts as a
   conversation of its own, so that unusable records without keys open the breaker as well; under one key they do not.
3. `too_large` and `late` are about one conversation, or about arrival, and not about the producer of the input. Like
   ignored records they do not count.
4. The share is judged over windows of `window_records` records, and only when a window is full. Each conversation has
   one vote: the share of dead letters among its records. Where only a few conversations have any, it stays closed.
5. Records of a failed commit are not counted: they are read again.
6. It keeps hashes of conversations only, at most as many as a window has records and a row has conversations.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from consumer.core.outcomes import DeadLettered, Ignored, Outcome
from consumer.core.reasons import DeadLetterReason, Reason

_OF_ONE_CONVERSATION: Final[frozenset[DeadLetterReason]] = frozenset({"too_large", "late"})
_FEW: Final = 0.01
"""In this share of a window's records, as a number of conversations, dead letters have to occur to open it."""
_FEW_LEAST: Final = 2


class _Counts(Struct):
    in_window: int = 0
    nameless_in_window: int = 0
    """Dead letters that name no conversation."""
    records: dict[int, int] = field(default_factory=dict)
    """In the window: records by the hash of their conversation."""
    dead: dict[int, int] = field(default_factory=dict)
    """In the window: dead letters by the hash of their conversation."""
    in_row: set[int] = field(default_factory=set)
    """Conversations of the dead letters since the last record that was none."""
    nameless_in_row: int = 0
    open_reason: str = ""

    def copy(self) -> "_Counts":
        """The same counts, which change on their own."""
        return _Counts(
            self.in_window,
            self.nameless_in_window,
            self.records.copy(),
            self.dead.copy(),
            self.in_row.copy(),
            self.nameless_in_row,
            self.open_reason,
        )


class BreakerLimits(Struct, frozen=True):
    """When the breaker opens."""

    ratio_max: float
    """Share of dead letters in a window, by conversation (CC_DEAD_LETTERS_RATIO_MAX)."""
    window_records: int
    """Records over which that share is taken (CC_DEAD_LETTERS_WINDOW_RECORDS)."""
    consecutive_max: int
    """Conversations with nothing but dead letters in a row (CC_DEAD_LETTERS_CONSECUTIVE_MAX)."""


class CircuitBreaker:
    """Counts the conversations of the dead letters of one lane."""

    def __init__(self, limits: BreakerLimits) -> None:
        self._ratio_max = limits.ratio_max
        self._window_records = limits.window_records
        self._consecutive_max = limits.consecutive_max
        self._few = min(self._window_records, max(_FEW_LEAST, int(self._window_records * _FEW)))
        self._counts = _Counts()
        self._committed = _Counts()

    @property
    def open_reason(self) -> str:
        """Why it is open, with the setting that decided; empty while closed."""
        return self._counts.open_reason

    def add(self, outcome: Outcome) -> bool:
        """Count a record; returns whether the breaker is open."""
        counts = self._counts
        if counts.open_reason or isinstance(outcome, Ignored) or outcome.reason in _OF_ONE_CONVERSATION:
            return bool(counts.open_reason)
        conversation = outcome.conversation_id
        if isinstance(outcome, DeadLettered):
            conversation = conversation or outcome.key_text
        number = hash(conversation)
        counts.in_window += 1
        if conversation:
            counts.records[number] = counts.records.get(number, 0) + 1
        if isinstance(outcome, DeadLettered):
            self._add_dead(number if conversation else None, outcome.reason)
        elif counts.in_row or counts.nameless_in_row:
            counts.in_row.clear()
            counts.nameless_in_row = 0
        if counts.in_window >= self._window_records:
            self._judge_window(outcome.reason)
        return bool(counts.open_reason)

    @property
    def left_in_window(self) -> int:
        """How many records may be counted before a window is judged."""
        return self._window_records - self._counts.in_window

    def add_used(self, conversation_ids: Sequence[str]) -> bool:
        """Count applied and unchanged records, at most `left_in_window`; returns whether the breaker is open."""
        counts = self._counts
        if counts.open_reason or not conversation_ids:
            return bool(counts.open_reason)
        records = counts.records
        for conversation_id in conversation_ids:
            number = hash(conversation_id)
            records[number] = records.get(number, 0) + 1
        counts.in_window += len(conversation_ids)
        counts.in_row.clear()
        counts.nameless_in_row = 0
        if counts.in_window >= self._window_records:
            self._judge_window("")
        return bool(counts.open_reason)

    def commit(self) -> None:
        """What was counted is committed."""
        self._committed = self._counts.copy()

    def rollback(self) -> None:
        """The commit failed: forget what was counted since the last one."""
        self._counts = self._committed.copy()

    def _add_dead(self, conversation: int | None, reason: Reason) -> None:
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

    def _judge_window(self, reason: Reason) -> None:
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

    def _open(self, found: str, setting: str, reason: Reason) -> None:
        if not self._counts.open_reason:
            self._counts.open_reason = f"{found} reached {setting}; the last reason was {reason or 'none'}"
