"""Records and settings that the worker's tests share."""

import json
from typing import Any

from consumer.core.record import Record
from consumer.settings import Settings
from tests.strategies import NESTED_TOPICS, Json, at, make_record, websocket
from tests.tuned import with_changes

HOUR_S = 3_600
FOREVER_MS = 20_000
"""A commit interval that no test reaches: the longest that the other settings allow, on a clock that stands still."""


def settings_of(**changed: Any) -> Settings:
    """Settings with the given values; a field of the tuning may be given by its name too."""
    return with_changes(Settings(bootstrap_servers="b:1"), **changed)


def call(
    offset: int, state: str, seconds: float, conversation_id: str = "c1", communication_id: str = "m1", **fields: Any
) -> Record:
    """A snapshot of a call that entered a state at the time of the snapshot."""
    communication: Json = {"id": communication_id, "state": state} | fields
    if state == "connected":
        communication["connectedTime"] = at(seconds)
    elif state in {"disconnected", "terminated"}:
        communication["disconnectedTime"] = at(seconds)
    body = {"id": conversation_id, "participants": [{"id": "p1", "calls": [communication]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, key=conversation_id, offset=offset)


def rubbish(offset: int, seconds: float = 0.0, value: bytes = b'{"id":') -> Record:
    """A record that cannot be parsed, with a key of its own."""
    return make_record(value, seconds=seconds, key=f"rubbish-{offset}", offset=offset)


def heartbeat(offset: int) -> Record:
    return make_record(websocket("channel.metadata", {"message": "WebSocket Heartbeat"}), offset=offset)


def first_states(states: dict[bytes, bytes]) -> dict[str, str | None]:
    """The state of the first communication of each conversation."""
    return {
        key.decode(): json.loads(state)["participants"][0]["communications"][0].get("state")
        for key, state in states.items()
    }
