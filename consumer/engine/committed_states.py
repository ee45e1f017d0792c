"""The committed states of one lane, and when they are to be evicted.

1. They are, byte for byte, what the state topic holds up to `log_offset`.
2. An engine stages over them what a commit would change: a newer state, or None for a tombstone.
3. Every committed conversation is in a bucket of `_due` not later than the minute it expires in. Stale entries are
   skipped when their bucket expires.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from consumer.core import state_codec, timestamps
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.engine.live_index import LiveIndex
from schemas.state import ConversationState, Summary

EVICTIONS_PER_RECORD_MAX = 64
"""Evictions for which one record has to wait."""
_MINUTE = len("2026-01-01T10:05")


class CommittedStates(ABC):
    """The states of one input partition. An engine stages over them."""

    def __init__(self, rules: Rules) -> None:
        self._committed: dict[str, bytes] = {}
        self._restored: dict[str, bytes | None] = {}
        self._due = {False: _Due(rules.retention_ended_s), True: _Due(rules.retention_idle_s)}
        """By whether there is a live communication."""
        self.swept_minute = 0
        """Of stream time: all that expires by it is staged to go."""
        self.live_index = LiveIndex()
        self.committed_bytes = 0
        self.log_offset = 0
        """Where to go on reading the state topic."""
        self.state_offset = 0
        """After the newest state in it, in the state topic. `log_offset` may be past markers that follow."""

    def __len__(self) -> int:
        return len(self._committed)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Committed states by conversation id."""
        return iter(self._committed.items())

    def get(self, conversation_id: str) -> bytes | None:
        """The committed state of a conversation."""
        return self._committed.get(conversation_id)

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add records of the state topic, in order; `settle` must follow before anything is staged.

        Raises UnicodeDecodeError where a key is no conversation id.
        """
        self._restored.update([(key.decode(), state) for key, state in entries])

    def settle(self, most: int) -> bool:
        """Make up to `most` restored states committed ones; returns whether there are more.

        Raises msgspec.DecodeError and UnicodeDecodeError where one is no state.
        """
        for _ in range(min(most, len(self._restored))):
            self._put(*self._restored.popitem())
        return bool(self._restored)

    def count_staged(self) -> int:
        """How many conversations there are with what is staged."""
        staged = list(self._staged_ids())
        appeared = sum(not is_gone and key not in self._committed for key, is_gone in staged)
        gone = sum(is_gone and key in self._committed for key, is_gone in staged)
        return len(self._committed) + appeared - gone

    def clear(self) -> None:
        """Forget what is committed, so that it is restored from the beginning."""
        for conversation_id in list(self._committed):
            self._put(conversation_id, None)
        self._restored.clear()
        self.log_offset = self.state_offset = 0

    def evict(self, stream_ms: int, most: int = EVICTIONS_PER_RECORD_MAX) -> int:
        """Stage tombstones for conversations that have expired by stream time; returns how many, at most `most`."""
        minute, evicted = stream_ms // 60_000, 0
        if minute == self.swept_minute:
            return 0
        for live, due in self._due.items():
            for conversation_id in due.find_expired(stream_ms):
                state = self._newest(conversation_id)
                if state is None:
                    continue
                if bool(state.live) != live or not due.is_over(state.snapshot_time, stream_ms):
                    self._schedule(conversation_id, state)
                    continue
                self._stage_tombstone(conversation_id)
                evicted += 1
                if evicted >= most:
                    return evicted
        self.swept_minute = minute
        return evicted

    def is_over(self, live: int, snapshot_time: str, stream_ms: int) -> bool:
        """Whether a conversation with so many live communications has expired by stream time."""
        return self._due[bool(live)].is_over(snapshot_time, stream_ms)

    @abstractmethod
    def lookup(self, conversation_id: str) -> StoredState | None:
        """The newest state of a conversation, a staged one included."""

    @abstractmethod
    def stage(self, conversation_id: str, state: StoredState) -> None:
        """Stage what a conversation has come to."""

    @abstractmethod
    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """The last staged state by conversation; None is a tombstone."""

    @abstractmethod
    def merge(self, log_offset: int | None) -> None:
        """The commit succeeded: the staged is committed. `log_offset` follows the last state written, if one was."""

    @abstractmethod
    def drop(self) -> None:
        """The commit failed: forget what is staged."""

    @abstractmethod
    def _staged_ids(self) -> Iterable[tuple[str, bool]]:
        """The conversations that are staged, and whether as a tombstone."""

    @abstractmethod
    def _find_staged(self, conversation_id: str) -> tuple[bool, bytes | None]:
        """Whether a conversation is staged; then its published state, None for a tombstone."""

    @abstractmethod
    def _stage_tombstone(self, conversation_id: str) -> None:
        """Stage that a conversation is gone."""

    def _merge(self, staged: Iterable[tuple[str, bytes | None]], log_offset: int | None) -> None:
        """What was staged is committed. `log_offset` follows the last state written, if one was."""
        for conversation_id, published in staged:
            self._put(conversation_id, published, is_ours=True)
        if log_offset is not None:
            self.log_offset = self.state_offset = log_offset

    def _drop(self, staged: Iterable[str]) -> None:
        """What was staged is forgotten: what would have been evicted is due again."""
        for conversation_id in staged:
            published = self._committed.get(conversation_id)
            if published is not None:
                self._schedule(conversation_id, state_codec.summary(published))
        self.swept_minute = 0

    def _newest(self, conversation_id: str) -> Summary | None:
        is_staged, published = self._find_staged(conversation_id)
        if not is_staged:
            published = self._committed.get(conversation_id)
        return None if published is None else state_codec.summary(published)

    def _schedule(self, conversation_id: str, state: Summary | ConversationState) -> None:
        """Note when a conversation may expire; one that is seen again after its tombstone was staged, too."""
        self._due[bool(state.live)].add(conversation_id, state.snapshot_time)

    def _put(self, conversation_id: str, published: bytes | None, *, is_ours: bool = False) -> None:
        """Make a state, which may be one that an engine staged, the committed one; None for none."""
        before = self._committed.get(conversation_id)
        if not (is_ours and before and published and state_codec.is_counted_alike(before, published)):
            self._count(conversation_id, before, published)
        self.committed_bytes += len(published or b"") - len(before or b"")
        if published is None:
            self._committed.pop(conversation_id, None)
        else:
            self._committed[conversation_id] = published

    def _count(self, conversation_id: str, before: bytes | None, published: bytes | None) -> None:
        after = None if published is None else state_codec.summary(published)
        was = None if before is None else state_codec.summary(before)
        self.live_index.replace(conversation_id, was, after)
        if after is not None and (was is None or (was.live and not after.live)):
            self._schedule(conversation_id, after)


class _Due:
    """Conversations by the minute of the newest snapshot that they were known with when they were added."""

    def __init__(self, retention_s: int) -> None:
        self._retention_ms = retention_s * 1_000
        self._minutes: dict[str, set[str]] = {}
        self._order: list[str] = []

    def add(self, conversation_id: str, snapshot_time: str) -> None:
        minute = snapshot_time[:_MINUTE]
        waiting = self._minutes.get(minute)
        if waiting is None:
            waiting = self._minutes[minute] = set()
            heapq.heappush(self._order, minute)
        waiting.add(conversation_id)

    def is_over(self, snapshot_time: str, stream_ms: int) -> bool:
        """Whether the retention of such a snapshot has ended with a minute before that of stream time."""
        return snapshot_time[:_MINUTE] < self._over_before(stream_ms)

    def find_expired(self, stream_ms: int) -> Iterator[str]:
        """Remove and yield conversations that may have expired; the caller may add them again."""
        before = self._over_before(stream_ms)
        while self._order and self._order[0] < before:
            waiting = self._minutes[self._order[0]]
            while waiting:
                yield waiting.pop()
            del self._minutes[heapq.heappop(self._order)]

    def _over_before(self, stream_ms: int) -> str:
        return timestamps.to_text(max(timestamps.EARLIEST_MS, stream_ms - self._retention_ms))[:_MINUTE]
