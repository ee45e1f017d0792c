"""What this worker committed last, for the live page: operations on transitions, dead letters, and delays.

It keeps references to what was encoded anyway and reads it when it is asked, so that a commit costs next to nothing.
Of dead letters it keeps no value: those may be large.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from consumer.core.framing import parse_key
from consumer.engine.commit_stats import CommitStats
from consumer.engine.dead_letters import REASON_HEADER
from consumer.engine.output import Output
from consumer.worker.ports import Effects
from schemas.dead_letter import HEADER_PREFIX

KEPT_MAX = 500
LETTERS_MAX = 100
_TEXT_MAX = 256


class EncodedOperation(Struct, frozen=True):
    """A published operation, as it was encoded."""

    committed_ms: int
    conversation_id: str
    value: bytes


class RecentLetter(Struct, frozen=True):
    """A published dead letter, and when its worker committed it, in epoch milliseconds."""

    committed_ms: int
    conversation_id: str
    """The id that the key of the record spells, empty if it has none or dead letters carry none."""
    reason: str
    detail: str
    partition: str
    """Of the record in the input, in digits."""
    offset: str


class RecentActivity:
    """The latest operations and dead letters, and sums since the worker started."""

    def __init__(self, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._wall_ms = wall_ms
        self.dead_letters: Counter[str] = Counter()
        """By reason."""
        self.letters: deque[RecentLetter] = deque(maxlen=LETTERS_MAX)
        """The latest, the oldest first."""
        self.corrections = 0
        """Retracted transitions."""
        self._slowest_ms: int | None = None
        self._commits: deque[tuple[int, Sequence[Output]]] = deque()
        """When the latest commits were, and their operations: as few as hold `KEPT_MAX`, the oldest first."""
        self._count = 0
        """How many operations these hold."""

    @property
    def operations(self) -> list[EncodedOperation]:
        """The latest operations, at most `KEPT_MAX`, the oldest first."""
        outputs: list[tuple[int, Output]] = []
        for committed_ms, commit in reversed(self._commits):
            latest = commit[max(0, len(commit) - KEPT_MAX + len(outputs)) :]
            outputs[:0] = [(committed_ms, output) for output in latest]
        return [
            EncodedOperation(committed_ms, (output.key or b"").decode(), output.value or b"")
            for committed_ms, output in outputs
        ]

    def add(self, effects: Effects, stats: CommitStats) -> None:
        """Add the effects of a commit that succeeded."""
        now_ms = self._wall_ms()
        if effects.transitions:
            self._commits.append((now_ms, effects.transitions))
            self._count += len(effects.transitions)
            while self._count - len(self._commits[0][1]) >= KEPT_MAX:
                self._count -= len(self._commits.popleft()[1])
        for output in effects.dead_letters:
            self.dead_letters[_text(output, REASON_HEADER)] += 1
        self.letters.extend(_letter(now_ms, output) for output in effects.dead_letters[-LETTERS_MAX:])
        self.corrections += stats.retracted.total()
        if stats.records:
            self._slowest_ms = max(self._slowest_ms or 0, max(stats.ages_ms, default=0))

    def take_slowest_ms(self) -> int | None:
        """How old a record was at most when it was processed, of all commits since this was asked; None without any."""
        slowest_ms, self._slowest_ms = self._slowest_ms, None
        return slowest_ms


def _letter(now_ms: int, output: Output) -> RecentLetter:
    key = output.key or b""
    spelled = parse_key(key)
    return RecentLetter(
        now_ms,
        (key if spelled is None else spelled.value).decode("utf-8", "replace")[:_TEXT_MAX],
        _text(output, REASON_HEADER),
        _text(output, HEADER_PREFIX + "detail"),
        _text(output, HEADER_PREFIX + "source-partition"),
        _text(output, HEADER_PREFIX + "source-offset"),
    )


def _text(output: Output, name: str) -> str:
    """The text of a header, empty if there is none."""
    text = next((value for header, value in output.headers if header == name and value), b"")
    return text.decode("utf-8", "replace")[:_TEXT_MAX]
