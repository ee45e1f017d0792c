"""The parts of a transition that depend on when it was published: operation, context and source."""

from typing import Any

from tests.core.play import play
from tests.strategies import NESTED_TOPICS, TOPIC, at, make_record, websocket


def publish(*updates: tuple[float, dict[str, Any], dict[str, Any]]) -> list[tuple[str, str, dict[str, Any], int]]:
    """(operation, state, context, offset) for updates of one call given as (seconds, participant, communication)."""
    records = []
    for offset, (seconds, participant, call) in enumerate(updates):
        body = {"id": "c1", "participants": [{"id": "p1", **participant, "calls": [{"id": "m1", **call}]}]}
        records.append(make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=offset))
    log = play(records).log
    assert all(transition["source"]["topic"] == TOPIC for transition in log)
    return [
        (transition["op"], transition["to"], transition["context"], transition["source"]["offset"])
        for transition in log
    ]


def test_the_context_is_what_was_known_then() -> None:
    agent = {"purpose": "agent", "userId": "u1", "queueId": "q1"}
    ended = {"state": "disconnected", "disconnectedTime": at(9), "disconnectType": "peer"}
    assert publish((1, {"purpose": "agent"}, {"state": "alerting"}), (9, agent, ended)) == [
        ("assert", "alerting", {"purpose": "agent"}, 0),
        ("assert", "disconnected", {"purpose": "agent", "userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
    ]


def test_a_correction_has_the_context_of_its_own_record() -> None:
    """Retractions and assertions alike."""
    ended = {"state": "disconnected", "disconnectedTime": at(9), "disconnectType": "peer"}
    connected = {"state": "connected", "connectedTime": at(5)}
    assert publish((9, {"userId": "u1"}, ended), (5, {"queueId": "q1"}, connected)) == [
        ("assert", "disconnected", {"userId": "u1", "disconnectType": "peer"}, 0),
        ("retract", "disconnected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
        ("assert", "connected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
        ("assert", "disconnected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
    ]
