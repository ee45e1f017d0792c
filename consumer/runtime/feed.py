"""What this worker committed last: operations on transitions, and dead letters by reason. For people who look on.

Only references are kept, and a bounded number: taking in a commit costs next to nothing.
"""

from collections import Counter, deque
from collections.abc import Callable

from msgspec import Struct

from consumer.runtime.bookmark import Ends, OutputName
from consumer.runtime.dead_letters import REASON_HEADER
from consumer.runtime.ports import Effects, Output, Publisher
from consumer.runtime.settlement import Settlement, Verdict

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


class ObservedPublisher:
    """A lane's publisher whose commits a feed takes in."""

    def __init__(self, publisher: Publisher, committed: Callable[[Effects], None]) -> None:
        self._publisher = publisher
        self._committed = committed

    async def open(self) -> None:
        """See `Publisher.open`."""
        await self._publisher.open()

    async def settlement(self) -> Settlement:
        """See `Publisher.settlement`."""
        return await self._publisher.settlement()

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        """See `Publisher.shows`."""
        return await self._publisher.shows(output, from_offset)

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """See `Publisher.settle`."""
        await self._publisher.settle(settlement, verdict)

    async def confirm(self) -> None:
        """See `Publisher.confirm`."""
        await self._publisher.confirm()

    async def commit(self, effects: Effects) -> Ends:
        """See `Publisher.commit`."""
        ends = await self._publisher.commit(effects)
        self._committed(effects)
        return ends

    async def close(self) -> None:
        """See `Publisher.close`."""
        await self._publisher.close()


def _reason(output: Output) -> str:
    return next((value.decode() for name, value in output.headers if name == REASON_HEADER), "")
