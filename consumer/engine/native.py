"""The native engine: ordinary records are processed in Rust, and the others as the reference engine does.

1. A record that the native core declines has changed nothing there. The rules in Python process it, over the same
   states.
2. What is staged lies in the native core, and what is committed in Python, as bytes. So all that reads states, like
   scrapes and queries, is the same for both engines and never meets a native call.
3. A panic of the native core is a failure of the engine. Once the lane has opened again, the record is processed in
   Python.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from consumer.core import state_codec
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.engine._native import Core, FetchedRecords, PanicException, Records
from consumer.engine.commit_stats import CommitStats, DeclinedReason
from consumer.engine.committed_states import CommittedStates
from consumer.engine.output import Output, PackableOutputs, PackedRecords
from consumer.engine.protocol import EngineFailedError, Outputs, Slice
from consumer.engine.python import EngineOptions, PythonEngine


class NativeEngine(PythonEngine):
    """Implements `protocol.Engine`."""

    def __init__(self, options: EngineOptions, clock_s: Callable[[], float] = time.perf_counter) -> None:
        states = NativeStates(options.rules)
        super().__init__(options, clock_s, states)
        self._core = states.core
        self._panicked: set[int] = set()
        """Offsets of the records at which the core panicked."""

    def process(
        self, records: Sequence[Record], first_index: int, slice_s: float, *, now_s: float, now_ms: int
    ) -> Slice:
        """See `Engine.process`."""
        if not self._records:
            self._since_s = now_s
        batch = records if isinstance(records, list | FetchedRecords) else list(records)
        started_s, elapsed_s, index = self._clock_s(), 0.0, first_index
        while index < len(batch):
            declined: DeclinedReason | None = None
            if self._panicked and batch[index].offset in self._panicked:
                declined = "panic"
            else:
                end = min(len(batch), index + self._breaker.left_in_window, self._next_panic(batch, index))
                begin = index
                index, declined = self._process_natively(batch, index, end, slice_s - elapsed_s, now_ms)
                elapsed_s = self._clock_s() - started_s
                if self._breaker.open_reason:
                    return Slice(index, "breaker", elapsed_s)
                if elapsed_s >= slice_s and index > begin:
                    return Slice(index, "time", elapsed_s)
            if declined:
                outcome = self._step(batch[index], started_s + slice_s)
                if outcome is None:
                    return Slice(index, "time", self._clock_s() - started_s)
                self.stats.declined[declined] += 1  # what the core has counted comes first
                is_breaker_open = self._stage(batch[index], outcome, now_ms)
                index += 1
                elapsed_s = self._clock_s() - started_s
                if is_breaker_open:
                    return Slice(index, "breaker", elapsed_s)
                if elapsed_s >= slice_s:
                    return Slice(index, "time", elapsed_s)
        return Slice(len(batch), "end", elapsed_s)

    @property
    def stats(self) -> CommitStats:
        """See `Engine.stats`. What the core has counted is added when it is asked for."""
        for name, counted in self._core.drain_stats().items():
            if isinstance(counted, int):
                setattr(self._stats, name, getattr(self._stats, name) + counted)
            elif isinstance(counted, list):
                getattr(self._stats, name).extend(counted)
            elif counted:
                getattr(self._stats, name).update(counted)
        return self._stats

    def outputs(self) -> Outputs:
        """See `Engine.outputs`."""
        states, transitions = self._core.outputs()
        return Outputs(NativeOutputs(states), NativeOutputs(transitions), self._dead_letters)

    def rollback(self) -> None:
        """See `Engine.rollback`."""
        super().rollback()
        if self._panicked:
            self._core.clear()

    def _stage_transitions(self, conversation_id: str, transitions: list[bytes]) -> None:
        self._core.stage_transitions(conversation_id, transitions)

    def _next_panic(self, records: list[Record] | FetchedRecords, index: int) -> int:
        """The index of the next record at which the core panicked; the length of the records if there is none."""
        if not self._panicked:
            return len(records)
        offsets = (number for number in range(index, len(records)) if records[number].offset in self._panicked)
        return next(offsets, len(records))

    def _process_natively(
        self, records: list[Record] | FetchedRecords, index: int, end: int, slice_s: float, now_ms: int
    ) -> tuple[int, DeclinedReason | None]:
        """Process records in the core; returns the index of the first one left, and why that is declined, if it is."""
        core = self._core
        if self._clock_s is not time.perf_counter:  # the core reads that clock only
            end = index + 1
        try:
            done = core.process(records, index, end, slice_s, now_ms, self.stream_ms, self.states.swept_minute)
        except PanicException as panic:
            offset = records[core.position].offset
            self._panicked.add(offset)
            raise EngineFailedError(f"the native engine panicked at offset {offset}: {panic}") from panic
        if done.next_index > index:
            self.stream_ms = done.stream_ms
            self._records += done.next_index - index
            self._bytes += done.state_bytes
            self.next_offset = done.next_offset
            if done.enters_minute and done.stream_ms is not None:
                self._stats.evicted += self.states.evict(done.stream_ms)
            self._breaker.add_used(done.conversation_ids)
        return done.next_index, done.declined


class NativeOutputs(PackableOutputs):
    """States or transitions as the native core staged them."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Output: ...
    @overload
    def __getitem__(self, index: slice) -> list[Output]: ...
    def __getitem__(self, index: int | slice) -> Output | list[Output]:
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            return Output(*self._records.get(chosen))
        return [Output(*self._records.get(number)) for number in chosen]

    def pack(self, bytes_max: int) -> Iterator[PackedRecords]:
        """See `PackableOutputs.pack`."""
        first = 0
        while first < len(self):
            count, content = self._records.pack(first, bytes_max)
            yield PackedRecords(count, content)
            first += count


class NativeStates(CommittedStates):
    """The committed states of a partition, with those staged over them in the native core."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.core = Core(rules, self._committed)

    def lookup(self, conversation_id: str) -> StoredState | None:
        """See `CommittedStates.lookup`."""
        is_staged, published = self._find_staged(conversation_id)
        if not is_staged:
            published = self._committed.get(conversation_id)
        return None if published is None else state_codec.decode(published)

    def stage(self, conversation_id: str, state: StoredState) -> None:
        """See `CommittedStates.stage`."""
        if self._find_staged(conversation_id) == (True, None):
            self._schedule(conversation_id, state.state)
        self.core.stage(conversation_id, state.published)

    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """See `CommittedStates.staged`."""
        return iter(self.core.staged())

    def merge(self, log_offset: int | None) -> None:
        """See `CommittedStates.merge`."""
        self._merge(self.core.staged(), log_offset)
        self.core.commit()

    def drop(self) -> None:
        """See `CommittedStates.drop`."""
        staged = [conversation_id for conversation_id, _ in self.core.staged_ids()]
        self.core.rollback()
        self._drop(staged)

    def clear(self) -> None:
        """See `CommittedStates.clear`."""
        super().clear()
        self.core.clear()

    def settle(self, most: int) -> bool:
        """See `States.settle`. What the core holds decoded may be of before."""
        if self._restored:
            self.core.clear()
        return super().settle(most)

    def _staged_ids(self) -> Iterable[tuple[str, bool]]:
        return self.core.staged_ids()

    def _find_staged(self, conversation_id: str) -> tuple[bool, bytes | None]:
        return self.core.find_staged(conversation_id)

    def _stage_tombstone(self, conversation_id: str) -> None:
        self.core.stage(conversation_id, None)
