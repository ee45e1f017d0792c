"""The reference engine: the rules of the core over the state store."""

import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from consumer.core.envelope import LONG_BYTES
from consumer.core.outcomes import Applied, DeadLettered, Ignored, Outcome, Unchanged
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import LongStep, step
from consumer.engine import dead_letters
from consumer.engine.circuit_breaker import BreakerLimits, CircuitBreaker
from consumer.engine.commit_stats import CommitStats
from consumer.engine.committed_states import CommittedStates
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.output import Output
from consumer.engine.protocol import Outputs, Slice, Staged
from consumer.engine.state_store import StateStore

_ENCODER = msgspec.json.Encoder()


class EngineOptions(Struct, frozen=True):
    """What an engine is configured with."""

    rules: Rules
    breaker: BreakerLimits
    dead_letters: DeadLetterFormat


class PythonEngine:
    """Implements `protocol.Engine`."""

    def __init__(
        self,
        options: EngineOptions,
        clock_s: Callable[[], float] = time.perf_counter,
        states: CommittedStates | None = None,
    ) -> None:
        self.states = StateStore(options.rules) if states is None else states
        self.next_offset: int | None = None
        self.stream_ms: int | None = None
        self._options = options
        self._breaker = CircuitBreaker(options.breaker)
        self._clock_s = clock_s
        self._begun: LongStep | None = None
        """The long record at hand."""
        self._clear()

    @property
    def staged(self) -> Staged:
        """See `Engine.staged`."""
        return Staged(self._records, self._bytes, self._since_s)

    @property
    def stats(self) -> CommitStats:
        """See `Engine.stats`."""
        return self._stats

    @property
    def open_reason(self) -> str:
        """See `Engine.open_reason`."""
        return self._breaker.open_reason

    def start(self, next_offset: int, stream_ms: int | None) -> None:
        """See `Engine.start`."""
        self.next_offset, self.stream_ms = next_offset, stream_ms

    def skip_to(self, next_offset: int) -> None:
        """See `Engine.skip_to`."""
        self.next_offset = next_offset

    def process(
        self, records: Sequence[Record], first_index: int, slice_s: float, *, now_s: float, now_ms: int
    ) -> Slice:
        """See `Engine.process`."""
        if not self._records:
            self._since_s = now_s
        clock_s, step_one = self._clock_s, self._step
        started_s = clock_s()
        elapsed_s = 0.0
        for index in range(first_index, len(records)):
            record = records[index]
            outcome = step_one(record, started_s + slice_s)
            is_breaker_open = outcome is not None and self._stage(record, outcome, now_ms)
            elapsed_s = clock_s() - started_s
            if is_breaker_open:
                return Slice(index + 1, "breaker", elapsed_s)
            if outcome is None:
                return Slice(index, "time", elapsed_s)
            if elapsed_s >= slice_s:
                return Slice(index + 1, "time", elapsed_s)
        return Slice(len(records), "end", elapsed_s)

    def count_staged(self) -> int:
        """See `Engine.count_staged`."""
        return self.states.count_staged()

    def outputs(self) -> Outputs:
        """See `Engine.outputs`."""
        states = [Output(conversation_id.encode(), state) for conversation_id, state in self.states.staged()]
        return Outputs(states, self._transitions, self._dead_letters)

    def commit(self, state_end: int | None) -> None:
        """See `Engine.commit`."""
        self.states.merge(state_end)
        self._breaker.commit()
        self._clear()

    def rollback(self) -> None:
        """See `Engine.rollback`."""
        self.states.drop()
        self._begun = None
        self._clear()

    def settle_breaker(self, *, is_committed: bool) -> None:
        """See `Engine.settle_breaker`."""
        if is_committed:
            self._breaker.commit()
        else:
            self._breaker.rollback()

    def reset_breaker(self) -> None:
        """See `Engine.reset_breaker`."""
        self._breaker = CircuitBreaker(self._options.breaker)

    def _step(self, record: Record, until_s: float) -> Outcome | None:
        """Process a record. None if it is a long one for whose remaining stages there is no time."""
        rules, lookup = self._options.rules, self.states.lookup
        if record.value is None or len(record.value) < LONG_BYTES:
            return step(record, rules, self.stream_ms, lookup)
        if self._begun is None or self._begun.record is not record:
            self._begun = LongStep(record)
        while (outcome := self._begun.advance(rules, self.stream_ms, lookup)) is None:
            if self._clock_s() >= until_s:
                return None
        self._begun = None
        return outcome

    def _stage(self, record: Record, outcome: Outcome, now_ms: int) -> bool:
        """Stage what became of a record; returns whether the circuit breaker is open."""
        self._stats.add(record, outcome, self.stream_ms, now_ms)
        self._records += 1
        self.next_offset = record.next_offset
        match outcome:
            case Applied():
                self.states.stage(outcome.conversation_id, outcome.stored)
                self._bytes += len(outcome.stored.published)
                if outcome.transitions:
                    encoded = [_ENCODER.encode(operation) for operation in outcome.transitions]
                    self._stage_transitions(outcome.conversation_id, encoded)
            case DeadLettered():
                self._dead_letters.append(dead_letters.build(record, outcome, self._options.dead_letters))
                self._bytes += len(record.value or b"")
            case Unchanged() | Ignored():
                pass
        if outcome.stream_ms is not None and outcome.stream_ms != self.stream_ms:
            self.stream_ms = outcome.stream_ms
            self._stats.evicted += self.states.evict(outcome.stream_ms)
        return self._breaker.add(outcome)

    def _stage_transitions(self, conversation_id: str, transitions: list[bytes]) -> None:
        key = conversation_id.encode()
        self._transitions += [Output(key, transition) for transition in transitions]

    def _clear(self) -> None:
        """Forget what is staged; the offset and stream time stay."""
        self._stats = CommitStats()
        self._records = self._bytes = 0
        self._since_s = 0.0
        self._transitions: list[Output] = []
        self._dead_letters: list[Output] = []
