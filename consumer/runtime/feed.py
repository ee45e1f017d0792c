"""What this worker committed last: operations on transitions, and dead letters by reason. For people who look on.

Only references are kept, and a bounded number: taking in a commit costs next to nothing.
"""

from collections import Counter, deque

from msgspec import Struct

from consumer.runtime.dead_letters import REASON_HEADER
from consumer.runtime.ports import Effects, Output

KEPT_MAX = 500


class Operation(Struct, frozen=True):
    """A published operation as it was encoded."""

    conversation_id: str
    value: bytes


class Feed:
    """The latest operations, and how many dead letters there were since the worker started."""

    def __init__(self) -> None:
        self.operations: deque[Operation] = deque(maxlen=KEPT_MAX)
        self.dead_letters: Counter[str] = Counter()

    def add(self, effects: Effects) -> None:
        """Take in a commit that succeeded."""
        for output in effects.transitions[-KEPT_MAX:]:
            self.operations.append(Operation((output.key or b"").decode(), output.value or b""))
        for output in effects.dead_letters:
            self.dead_letters[_reason(output)] += 1


def _reason(output: Output) -> str:
    return next((value.decode() for name, value in output.headers if name == REASON_HEADER), "")
