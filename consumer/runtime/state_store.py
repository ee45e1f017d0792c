"""The conversations of one lane: what is committed, what is staged on top of it, and when they are to be evicted.

1. `_committed` is, byte for byte, what the state topic holds up to `log_offset`.
2. `_staged` lies over it: None stands for a tombstone. It becomes committed as a whole or is dropped as a whole.
3. `_decoded` holds committed states once more, decoded: those changed or looked up last, within `_DECODED_BYTES_MAX`.
4. Every committed conversation is in a bucket of `_due` not later than the minute it expires in; that a place is out
   of date is found out when its minute comes.
"""

import heapq
from collections.abc import Iterable, Iterator

from consumer.core import known, times
from consumer.core.known import Known
from consumer.core.rules import Rules
from consumer.runtime.census import Census
from schemas.state import Summary

EVICTIONS_PER_RECORD_MAX = 64
"""Evictions for which one record has to wait."""
_DECODED_BYTES_MAX = 4_194_304
"""Published bytes of the states held decoded, which take about twice as much: some 800 conversations in motion."""
_MINUTE = len("2026-01-01T10:05")


class StateStore:
    """In-memory state of one input partition."""

    def __init__(self, rules: Rules) -> None:
        self._committed: dict[str, bytes] = {}
        self._staged: dict[str, Known | None] = {}
        self._decoded: dict[str, Known] = {}
        self._decoded_bytes = 0
        self._restored: dict[str, bytes | None] = {}
        self._due = {False: _Due(rules.retention_ended_s), True: _Due(rules.retention_idle_s)}
        """By whether there is a live communication."""
        self._swept_minute = 0
        """Of stream time: all that expires by it is staged to go."""
        self.census = Census()
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

    def lookup(self, conversation_id: str) -> Known | None:
        """The newest state of a conversation, a staged one included."""
        if conversation_id in self._staged:
            return self._staged[conversation_id]
        decoded = self._decoded.get(conversation_id)
        if decoded is None and (published := self._committed.get(conversation_id)) is not None:
            decoded = known.decoded(published)
            self._keep_decoded(conversation_id, decoded)
        return decoded

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take in records of the state topic, in order; `settle` must follow before anything is staged.

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

    def stage(self, conversation_id: str, state: Known) -> None:
        """Stage what a conversation has come to."""
        if conversation_id in self._staged and self._staged[conversation_id] is None:  # evicted, and begins anew
            self._due[bool(state.state.live)].add(conversation_id, state.state.snapshot_time)
        self._staged[conversation_id] = state

    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """The last staged state of each conversation; None is a tombstone."""
        for conversation_id, state in self._staged.items():
            yield conversation_id, None if state is None else state.published

    def count_staged(self) -> int:
        """How many conversations there are with what is staged."""
        appeared = sum(state is not None and key not in self._committed for key, state in self._staged.items())
        gone = sum(state is None and key in self._committed for key, state in self._staged.items())
        return len(self._committed) + appeared - gone

    def merge(self, log_offset: int | None) -> None:
        """The commit succeeded: the staged is committed. `log_offset` follows the last state written, if one was."""
        staged, self._staged = self._staged, {}
        for conversation_id, state in staged.items():
            self._put(conversation_id, None if state is None else state.published)
            if state is not None:
                self._keep_decoded(conversation_id, state)
        if log_offset is not None:
            self.log_offset = self.state_offset = log_offset

    def drop(self) -> None:
        """The commit failed: forget what is staged."""
        staged, self._staged = self._staged, {}
        for conversation_id in staged:
            published = self._committed.get(conversation_id)
            if published is not None:
                self._schedule(conversation_id, known.summary(published))
        self._swept_minute = 0

    def clear(self) -> None:
        """Forget what is committed, so that it is restored from the beginning."""
        for conversation_id in list(self._committed):
            self._put(conversation_id, None)
        self._restored.clear()
        self.log_offset = self.state_offset = 0

    def evict(self, stream_ms: int, most: int = EVICTIONS_PER_RECORD_MAX) -> int:
        """Stage tombstones for conversations that have expired by stream time; returns how many, at most `most`."""
        minute, evicted = stream_ms // 60_000, 0
        if minute == self._swept_minute:
            return 0
        for live, due in self._due.items():
            for conversation_id in due.expired(stream_ms):
                state = self._newest(conversation_id)
                if state is None:
                    continue
                if bool(state.live) != live or not due.is_over(state.snapshot_time, stream_ms):
                    self._schedule(conversation_id, state)
                    continue
                self._staged[conversation_id] = None
                evicted += 1
                if evicted >= most:
                    return evicted
        self._swept_minute = minute
        return evicted

    def is_over(self, live: int, snapshot_time: str, stream_ms: int) -> bool:
        """Whether a conversation with so many live communications has expired by stream time."""
        return self._due[bool(live)].is_over(snapshot_time, stream_ms)

    def _newest(self, conversation_id: str) -> Summary | None:
        if conversation_id in self._staged:
            staged = self._staged[conversation_id]
            return None if staged is None else known.summary(staged.published)
        published = self._committed.get(conversation_id)
        return None if published is None else known.summary(published)

    def _schedule(self, conversation_id: str, state: Summary) -> None:
        self._due[bool(state.live)].add(conversation_id, state.snapshot_time)

    def _put(self, conversation_id: str, published: bytes | None) -> None:
        before = self._committed.get(conversation_id)
        after = None if published is None else known.summary(published)
        was = None if before is None else known.summary(before)
        self.census.replace(conversation_id, was, after)
        self._forget_decoded(conversation_id)
        if before is not None:
            self.committed_bytes -= len(before)
        if published is None or after is None:
            self._committed.pop(conversation_id, None)
            return
        self._committed[conversation_id] = published
        self.committed_bytes += len(published)
        if was is None or (was.live and not after.live):
            self._schedule(conversation_id, after)

    def _keep_decoded(self, conversation_id: str, state: Known) -> None:
        """Hold a state that is not held decoded yet: `_put` lets go of the one before."""
        self._decoded[conversation_id] = state
        self._decoded_bytes += len(state.published)
        while self._decoded_bytes > _DECODED_BYTES_MAX:
            self._forget_decoded(next(iter(self._decoded)))

    def _forget_decoded(self, conversation_id: str) -> None:
        forgotten = self._decoded.pop(conversation_id, None)
        if forgotten is not None:
            self._decoded_bytes -= len(forgotten.published)


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

    def expired(self, stream_ms: int) -> Iterator[str]:
        """Takes out conversations whose time may have come; each may be added anew, with a newer snapshot."""
        before = self._over_before(stream_ms)
        while self._order and self._order[0] < before:
            waiting = self._minutes[self._order[0]]
            while waiting:
                yield waiting.pop()
            del self._minutes[heapq.heappop(self._order)]

    def _over_before(self, stream_ms: int) -> str:
        return times.text(max(times.EARLIEST_MS, stream_ms - self._retention_ms))[:_MINUTE]
