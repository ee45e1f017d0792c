"""Records and settings that the tests of the runtime share."""

import json
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.core.step import Outcome
from consumer.runtime.settings import Settings
from tests.strategies import NESTED_TOPICS, Json, at, make_record, websocket

HOUR_S = 3_600
FOREVER_MS = 20_000
"""A commit interval that does not end in a test: the greatest that the other settings allow, and clocks stand still."""


def settings_of(**changed: Any) -> Settings:
    return Settings(bootstrap_servers="b:1", **changed)


def call(
    offset: int, state: str, seconds: float, conversation_id: str = "c1", communication_id: str = "m1", **shown: Any
) -> Record:
    """A call that is in a state, told at once by its snapshot."""
    communication: Json = {"id": communication_id, "state": state} | shown
    if state == "connected":
        communication["connectedTime"] = at(seconds)
    elif state in {"disconnected", "terminated"}:
        communication["disconnectedTime"] = at(seconds)
    body = {"id": conversation_id, "participants": [{"id": "p1", "calls": [communication]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, key=conversation_id, offset=offset)


def rubbish(offset: int, seconds: float = 0.0, value: bytes = b'{"id":') -> Record:
    """A record that nothing can be read from, of a conversation of its own."""
    return make_record(value, seconds=seconds, key=f"rubbish-{offset}", offset=offset)


def heartbeat(offset: int) -> Record:
    return make_record(websocket("channel.metadata", {"message": "WebSocket Heartbeat"}), offset=offset)


def outcome(disposition: str, reason: str = "") -> Outcome:
    return msgspec.convert({"disposition": disposition, "reason": reason}, Outcome)


def shown_states(states: dict[bytes, bytes]) -> dict[str, str | None]:
    """The state of the first communication of each conversation."""
    return {
        key.decode(): json.loads(state)["participants"][0]["communications"][0].get("state")
        for key, state in states.items()
    }
