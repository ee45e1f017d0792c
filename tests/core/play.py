"""Play records through the core as a lane does, keeping states, stream time and the log of transitions.

Where the native engine is built it gets the same records, and has to agree on every one of them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from consumer.core.outcomes import Applied, Outcome
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState, decode
from consumer.core.step import step
from consumer.engine.choice import EngineClass
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import Engine
from consumer.engine.python import EngineOptions
from tests.engines import native_class


class Played(Struct):
    known: dict[str, StoredState] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def states(self) -> dict[str, bytes]:
        """The published states."""
        return {key: stored.published for key, stored in self.known.items()}

    def documents(self) -> dict[str, dict[str, Any]]:
        """The published states, decoded, without `source`, which depends on arrival."""
        documents = {key: json.loads(state) for key, state in self.states.items()}
        for document in documents.values():
            del document["source"]
        return documents


def play(records: Iterable[Record], rules: Rules | None = None, *, restored: bool = False) -> Played:
    """Play records in the given order. With `restored` every state is decoded from its bytes, as after a restore."""
    played, stream_ms = Played(), None
    other = _Other(rules or Rules(), restored=restored)

    def lookup(conversation_id: str) -> StoredState | None:
        stored = played.known.get(conversation_id)
        return decode(stored.published) if restored and stored is not None else stored

    for record in records:
        outcome = step(record, rules or Rules(), stream_ms, lookup)
        other.assert_agrees(record, outcome, lambda: played.states, stream_ms)
        stream_ms = outcome.stream_ms
        played.outcomes.append(outcome)
        if isinstance(outcome, Applied):
            played.known[outcome.conversation_id] = outcome.stored
            played.log.extend(json.loads(msgspec.json.encode(transition)) for transition in outcome.transitions)
    return played


def play_only(records: Iterable[Record]) -> None:
    """Play records to measure the time that it takes. Only the states are kept, as in a lane."""
    known: dict[str, StoredState] = {}
    rules, stream_ms = Rules(), None
    for record in records:
        outcome = step(record, rules, stream_ms, known.get)
        stream_ms = outcome.stream_ms
        if isinstance(outcome, Applied):
            known[outcome.conversation_id] = outcome.stored


def process(record: Record, rules: Rules, stream_ms: int | None = None, known: StoredState | None = None) -> Outcome:
    """Process one record of a conversation of which `known` is known."""
    outcome = step(record, rules, stream_ms, lambda _: known)
    states = {} if known is None else {known.state.conversation_id: known.published}
    _Other(rules, restored=True).assert_agrees(record, outcome, lambda: states, stream_ms)
    return outcome


class _Other:
    """Processes the same records with the native engine, if it is built.

    With `restored` each record gets a new engine, whose states are restored from their published bytes.
    """

    def __init__(self, rules: Rules, *, restored: bool) -> None:
        breaker = BreakerLimits(ratio_max=1.0, window_records=1_000_000_000, consecutive_max=1_000_000_000)
        self._options = EngineOptions(
            rules, breaker, DeadLetterFormat(keep_payload=False, payload_bytes_max=0, version="1")
        )
        self._class: EngineClass | None = native_class()
        self._engine: Engine | None = None
        self._restored = restored

    def assert_agrees(
        self, record: Record, outcome: Outcome, read_states: Callable[[], dict[str, bytes]], stream_ms: int | None
    ) -> None:
        """Assert that the engine makes the same of a record, with the states known before it."""
        if self._class is None:
            return
        if self._engine is None or self._restored:
            self._engine = self._class(self._options)
            self._engine.states.restore((key.encode(), state) for key, state in read_states().items())
            while self._engine.states.settle(100):
                pass
            self._engine.start(0, stream_ms)
        engine = self._engine
        engine.process([record], 0, 60.0, now_s=0.0, now_ms=0)
        assert engine.stats.records == {(outcome.disposition, outcome.reason): 1}, record
        assert engine.stats.anomalies == Counter(outcome.anomalies), record
        assert engine.stream_ms == outcome.stream_ms, record
        outputs = engine.outputs()
        if isinstance(outcome, Applied):
            staged = {output.key: output.value for output in outputs.states}
            assert staged[outcome.conversation_id.encode()] == outcome.stored.published, record
            transitions = [msgspec.json.encode(transition) for transition in outcome.transitions]
            assert [output.value for output in outputs.transitions] == transitions, record
        else:
            assert [output for output in outputs.states if output.value is not None] == [], record
            assert not outputs.transitions, record
        engine.commit(None)
        if any(output.value is None for output in outputs.states):  # here nothing is evicted
            self._engine = None
