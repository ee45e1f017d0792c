"""Recompute the conversations of one partition from its records, as a lane does, but without publishing anything.

1. It uses the same step, store and evictions as a lane that has read the partition from its beginning.
2. Memory holds the states as bytes, as that lane would; it does not grow with the number of records.
"""

from collections import OrderedDict

from consumer.core.outcomes import Applied, Outcome
from consumer.core.record import Record
from consumer.core.retention import advance
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode
from consumer.core.state_codec import StoredState
from consumer.core.step import step
from consumer.engine.state_store import StateStore

_EVICTED_MAX = 50_000
"""How many evicted conversations are remembered, to notice when one returns."""


class Replay:
    """Recomputes the conversations of a partition. Records must come in order of offset."""

    def __init__(self, rules: Rules) -> None:
        self.store = StateStore(rules)
        self.stream_ms: int | None = None
        self._rules = rules
        self._evicted: OrderedDict[str, None] = OrderedDict()
        """The conversations evicted last, oldest first."""
        self.returned: set[str] = set()
        """Conversations that got a record after their eviction, or when they were due for it."""

    def apply(self, record: Record) -> tuple[StoredState | None, Outcome]:
        """Process a record; returns what was stored of its conversation before, and the outcome."""
        lookups: list[StoredState | None] = []

        def lookup(conversation_id: str) -> StoredState | None:
            lookups.append(self.store.lookup(conversation_id))
            return lookups[0]

        outcome = step(record, self._rules, self.stream_ms, lookup)
        before = lookups[0] if lookups else None
        if isinstance(outcome, Applied):
            if outcome.conversation_id in self._evicted or (before is not None and self._has_expired(before)):
                self.returned.add(outcome.conversation_id)
            self.store.stage(outcome.conversation_id, outcome.stored)
        self._advance(outcome.stream_ms)
        return before, outcome

    def skip(self, record: Record) -> None:
        """Let a record move nothing but stream time: for one whose conversation is of no interest."""
        decoded = decode(record, self._rules)
        if isinstance(decoded, Snapshot):
            self._advance(advance(self.stream_ms, decoded.time_ms))

    def commit(self) -> None:
        """Merge what is staged, as a lane does after a commit. Call this between two slices of records."""
        evicted = [conversation_id for conversation_id, state in self.store.staged() if state is None]
        self._evicted.update(dict.fromkeys(evicted))
        self.returned.difference_update(evicted)
        while len(self._evicted) > _EVICTED_MAX:
            self._evicted.popitem(last=False)
        self.store.merge(None)

    def _has_expired(self, state: StoredState) -> bool:
        if self.stream_ms is None:
            return False
        return self.store.is_over(state.state.live, state.state.snapshot_time, self.stream_ms)

    def _advance(self, stream_ms: int | None) -> None:
        if stream_ms is not None and stream_ms != self.stream_ms:
            self.stream_ms = stream_ms
            self.store.evict(stream_ms)
