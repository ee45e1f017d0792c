"""What this worker committed last, for the live page: operations on transitions, and dead letters by reason.

It keeps references to what was encoded anyway and reads it when it is asked, so that a commit costs next to nothing.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from consumer.engine.dead_letters import REASON_HEADER
from consumer.engine.output import Output
from consumer.worker.ports import Effects

KEPT_MAX = 500


class EncodedOperation(Struct, frozen=True):
    """A published operation, as it was encoded."""

    committed_ms: int
    conversation_id: str
    value: bytes


class RecentActivity:
    """The latest operations, and the number of dead letters since the worker started."""

    def __init__(self, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._wall_ms = wall_ms
        self.dead_letters: Counter[str] = Counter()
        """By reason."""
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

    def add(self, effects: Effects) -> None:
        """Add the effects of a commit that succeeded."""
        if effects.transitions:
            self._commits.append((self._wall_ms(), effects.transitions))
            self._count += len(effects.transitions)
            while self._count - len(self._commits[0][1]) >= KEPT_MAX:
                self._count -= len(self._commits.popleft()[1])
        for output in effects.dead_letters:
            self.dead_letters[_reason(output)] += 1


def _reason(output: Output) -> str:
    return next((value.decode() for name, value in output.headers if name == REASON_HEADER and value), "")
