"""What a state says of itself at its head."""

import json
import random
from typing import Any

from tests.core.play import play
from tests.strategies import NESTED_TOPICS, at, make_record, websocket


def head(*participants: dict[str, Any]) -> dict[str, Any]:
    """The state of a conversation that is shown twice: whole, and with nobody in it a minute later."""
    shown = [
        make_record(websocket(NESTED_TOPICS[0], {"id": "c1", "participants": each}), seconds=seconds, offset=offset)
        for offset, (seconds, each) in enumerate([(100, participants), (160, [])])
    ]
    played = play(shown)
    assert [each.disposition for each in played.outcomes] == ["applied", "applied"]
    found: dict[str, Any] = json.loads(played.states["c1"])
    return found


def test_live_communications_are_counted_and_their_beginnings_sorted_each_once() -> None:
    begun = list(range(1, 21))
    random.Random(1).shuffle(begun)
    calls = [{"id": f"m{second}", "state": "connected", "connectedTime": at(second)} for second in begun]
    ended = {"id": "m30", "state": "disconnected", "connectedTime": at(1), "disconnectedTime": at(30)}
    chat = {"id": "m31", "state": "alerting"}
    odd = {"id": "m32"}
    found = head({"id": "p2", "chats": [chat, odd], "calls": calls}, {"id": "p1", "calls": [*calls[:5], ended]})
    assert found["live"] == 26
    assert found["communications"] == {"call": {"connected": 25, "disconnected": 1}, "chat": {"alerting": 1}}
    assert found["liveSince"] == {"call": [at(second) for second in sorted(begun)], "chat": [at(100)]}
    assert [each["participantId"] for each in found["participants"]] == ["p1", "p2"]
    listed = [(each["media"], each["communicationId"]) for each in found["participants"][1]["communications"]]
    assert listed == sorted(listed)
    assert len(listed) == 21
    assert [list(found[name]) for name in ("communications", "liveSince")] == [["call", "chat"]] * 2


def test_a_snapshot_without_participants_is_the_newest_of_the_conversation_nevertheless() -> None:
    found = head({"id": "p1"})
    assert (found["snapshotTime"], found["participants"][0]["snapshotTime"]) == (at(160), at(100))
