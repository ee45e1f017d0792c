"""A lane's work on the records of one partition once more, without its effects: what should have come of them.

1. The same step, the same store and the same evictions as in a lane that has read the partition from its beginning.
2. In memory are the states as bytes that a lane would hold at the same place, and nothing that grows with the number
   of records.
"""

from collections import OrderedDict

from consumer.core.decode import Snapshot, decode
from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.retention import advanced
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step
from consumer.runtime.state_store import StateStore

_REMEMBERED_MAX = 50_000
"""Evicted conversations whose return is noticed."""


class Replay:
    """Recomputes the conversations of a partition. Records come in the order of their offsets."""

    def __init__(self, rules: Rules) -> None:
        self.store = StateStore(rules)
        self.stream_ms: int | None = None
        self._rules = rules
        self._gone: OrderedDict[str, None] = OrderedDict()
        """The conversations evicted last."""
        self.returned: set[str] = set()
        """Conversations that came back after an eviction, or at the edge of one."""

    def take(self, record: Record) -> tuple[Known | None, Outcome]:
        """What was known of the record's conversation, and what became of the record."""
        found: list[Known | None] = []

        def lookup(conversation_id: str) -> Known | None:
            found.append(self.store.lookup(conversation_id))
            return found[0]

        outcome = step(record, self._rules, self.stream_ms, lookup)
        before = found[0] if found else None
        if outcome.known is not None:
            if outcome.conversation_id in self._gone or (before is not None and self._is_over(before)):
                self.returned.add(outcome.conversation_id)
            self.store.stage(outcome.conversation_id, outcome.known)
        self._advance(outcome.stream_ms)
        return before, outcome

    def pass_over(self, record: Record) -> None:
        """Let a record move stream time only: for one whose conversation nobody asks for."""
        decoded = decode(record, self._rules)
        if isinstance(decoded, Snapshot):
            self._advance(advanced(self.stream_ms, decoded.time_ms))

    def settle(self) -> None:
        """Between two slices: take what was recomputed for committed, as a lane does after a commit."""
        evicted = [conversation_id for conversation_id, state in self.store.staged() if state is None]
        self._gone.update(dict.fromkeys(evicted))
        self.returned.difference_update(evicted)
        while len(self._gone) > _REMEMBERED_MAX:
            self._gone.popitem(last=False)
        self.store.merge(None)

    def _is_over(self, state: Known) -> bool:
        if self.stream_ms is None:
            return False
        return self.store.is_over(state.state.live, state.state.snapshot_time, self.stream_ms)

    def _advance(self, stream_ms: int | None) -> None:
        if stream_ms is not None and stream_ms != self.stream_ms:
            self.stream_ms = stream_ms
            self.store.evict(stream_ms)
