"""Playing records through the core, as a lane does: state, stream time and the emitted log are carried along."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step


class Played(Struct):
    states: dict[str, bytes] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def documents(self) -> dict[str, dict[str, Any]]:
        """States without what refers to arrival."""
        found = {key: json.loads(state) for key, state in self.states.items()}
        for document in found.values():
            del document["source"]
        return found


def play(records: Iterable[Record], rules: Rules | None = None) -> Played:
    played, stream_ms = Played(), None
    for record in records:
        outcome = step(record, rules or Rules(), stream_ms, played.states.get)
        stream_ms = outcome.stream_ms
        played.outcomes.append(outcome)
        if outcome.state is not None:
            played.states[outcome.conversation_id] = outcome.state
        played.log.extend(json.loads(msgspec.json.encode(each)) for each in outcome.transitions)
    return played
