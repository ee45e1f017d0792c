"""The conversations of one lane: what is committed, what is staged on top of it, and when they are to be evicted.

1. `_committed` is, byte for byte, what the state topic holds up to `log_offset`.
2. `_staged` lies over it: None stands for a tombstone. It becomes committed as a whole or is dropped as a whole.
3. Every known conversation is in a bucket of `_due` not later than the minute it expires in; that a place is out of
   date is found out when its minute comes.
"""

import heapq
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from consumer.core import times
from consumer.core.conversation import Change
from consumer.core.retention import expires_ms
from consumer.core.rules import Rules
from consumer.core.step import Outcome
from consumer.runtime.census import Census

_BUCKET_MS = 60_000


class _Age(Struct, rename="camel"):
    """As much of a published state as tells when it expires."""

    snapshot_time: str
    live: int


_AGE = msgspec.json.Decoder(_Age)


class StateStore:
    """In-memory state of one input partition."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._committed: dict[str, bytes] = {}
        self._staged: dict[str, bytes | None] = {}
        self._staged_census: list[tuple[str, Change | bytes]] = []
        self._restored: dict[str, bytes | None] = {}
        self._due: dict[int, set[str]] = {}
        self._due_order: list[int] = []
        self.census = Census(rules.park_cycles_max)
        self.committed_bytes = 0
        self.log_offset = 0
        """Where to go on reading the state topic."""

    def __len__(self) -> int:
        return len(self._committed)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Committed states by conversation id."""
        return iter(self._committed.items())

    def get(self, conversation_id: str) -> bytes | None:
        """The committed state of a conversation."""
        return self._committed.get(conversation_id)

    def lookup(self, conversation_id: str) -> bytes | None:
        """The newest state of a conversation, a staged one included."""
        if conversation_id in self._staged:
            return self._staged[conversation_id]
        return self._committed.get(conversation_id)

    def restore(self, key: bytes, state: bytes | None) -> None:
        """Take in a record of the state topic; `settle` must follow before anything is staged."""
        self._restored[key.decode()] = state

    def settle(self, most: int) -> bool:
        """Make up to `most` restored states committed ones; returns whether there are more."""
        for _ in range(min(most, len(self._restored))):
            conversation_id, state = self._restored.popitem()
            before = self._put(conversation_id, state)
            if before is not None:
                self.census.remove_state(conversation_id, before)
            if state is not None:
                self.census.add_state(conversation_id, state)
                self._schedule(conversation_id, _expires_ms(state, self._rules))
        return bool(self._restored)

    def stage(self, outcome: Outcome) -> None:
        """Stage what a record that was applied came to."""
        assert outcome.state is not None
        conversation_id = outcome.conversation_id
        if (outcome.was_live and not outcome.live) or self.lookup(conversation_id) is None:
            self._schedule(conversation_id, expires_ms(outcome.newest_ms, 0, self._rules))
        self._staged[conversation_id] = outcome.state
        self._staged_census.extend((conversation_id, change) for change in outcome.changes)

    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """The last staged state of each conversation; None is a tombstone."""
        return iter(self._staged.items())

    def count_staged(self) -> int:
        """How many conversations there are with what is staged."""
        appeared = sum(state is not None and key not in self._committed for key, state in self._staged.items())
        gone = sum(state is None and key in self._committed for key, state in self._staged.items())
        return len(self._committed) + appeared - gone

    def merge(self, log_offset: int | None) -> None:
        """The commit succeeded: the staged is committed. `log_offset` follows the last state written, if one was."""
        for conversation_id, counted in self._staged_census:
            if isinstance(counted, bytes):
                self.census.remove_state(conversation_id, counted)
            else:
                self.census.change(conversation_id, counted)
        for conversation_id, state in self._staged.items():
            self._put(conversation_id, state)
        self._clear()
        if log_offset is not None:
            self.log_offset = log_offset

    def drop(self) -> None:
        """The commit failed: forget what is staged."""
        for conversation_id in self._staged:
            state = self._committed.get(conversation_id)
            if state is not None:
                self._schedule(conversation_id, _expires_ms(state, self._rules))
        self._clear()

    def evict(self, stream_ms: int, most: int) -> int:
        """Stage tombstones for conversations that have expired by stream time; returns how many, at most `most`."""
        current = stream_ms // _BUCKET_MS
        evicted = 0
        while self._due_order and self._due_order[0] < current:
            waiting = self._due[self._due_order[0]]
            while waiting:
                if evicted >= most:
                    return evicted
                conversation_id = waiting.pop()
                state = self.lookup(conversation_id)
                if state is None:
                    continue
                expiry_ms = _expires_ms(state, self._rules)
                if expiry_ms // _BUCKET_MS < current:
                    self._staged[conversation_id] = None
                    self._staged_census.append((conversation_id, state))
                    evicted += 1
                else:
                    self._schedule(conversation_id, expiry_ms)
            del self._due[heapq.heappop(self._due_order)]
        return evicted

    def _schedule(self, conversation_id: str, expiry_ms: int) -> None:
        bucket = expiry_ms // _BUCKET_MS
        waiting = self._due.get(bucket)
        if waiting is None:
            waiting = self._due[bucket] = set()
            heapq.heappush(self._due_order, bucket)
        waiting.add(conversation_id)

    def _put(self, conversation_id: str, state: bytes | None) -> bytes | None:
        if state is None:
            before = self._committed.pop(conversation_id, None)
        else:
            before = self._committed.get(conversation_id)
            self._committed[conversation_id] = state
            self.committed_bytes += len(state)
        if before is not None:
            self.committed_bytes -= len(before)
        return before

    def _clear(self) -> None:
        self._staged.clear()
        self._staged_census.clear()


def _expires_ms(state: bytes, rules: Rules) -> int:
    age = _AGE.decode(state)
    return expires_ms(times.milliseconds(age.snapshot_time), age.live, rules)
