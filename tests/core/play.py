"""Playing records through the core, as a lane does: state, stream time and the emitted log are carried along."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from consumer.core.known import Known, decoded
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step


class Played(Struct):
    known: dict[str, Known] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def states(self) -> dict[str, bytes]:
        """The published states."""
        return {key: each.published for key, each in self.known.items()}

    def documents(self) -> dict[str, dict[str, Any]]:
        """States without what refers to arrival."""
        found = {key: json.loads(state) for key, state in self.states.items()}
        for document in found.values():
            del document["source"]
        return found


def play(records: Iterable[Record], rules: Rules | None = None, *, restored: bool = False) -> Played:
    """Play records in the order given; `restored`: whether each finds the state as if it were read back from Kafka."""
    played, stream_ms = Played(), None

    def lookup(conversation_id: str) -> Known | None:
        found = played.known.get(conversation_id)
        return decoded(found.published) if restored and found is not None else found

    for record in records:
        outcome = step(record, rules or Rules(), stream_ms, lookup)
        stream_ms = outcome.stream_ms
        played.outcomes.append(outcome)
        if outcome.known is not None:
            played.known[outcome.conversation_id] = outcome.known
        played.log.extend(json.loads(msgspec.json.encode(each)) for each in outcome.transitions)
    return played


def play_only(records: Iterable[Record]) -> None:
    """Play records for the time that it takes: of what comes out only the states are kept, as a lane does."""
    known: dict[str, Known] = {}
    rules, stream_ms = Rules(), None
    for record in records:
        outcome = step(record, rules, stream_ms, known.get)
        stream_ms = outcome.stream_ms
        if outcome.known is not None:
            known[outcome.conversation_id] = outcome.known
