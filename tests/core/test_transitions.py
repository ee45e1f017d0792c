"""What a transition says of the moment in which it was asserted or retracted, besides what is a function of the set."""

from typing import Any

from tests.core.play import play
from tests.strategies import NESTED_TOPICS, TOPIC, at, make_record, websocket


def told(*shown: tuple[float, dict[str, Any], dict[str, Any]]) -> list[tuple[str, str, dict[str, Any], int]]:
    """(operation, state, context, offset) of the records of one call: seconds, participant, communication."""
    records = [
        make_record(
            websocket(
                NESTED_TOPICS[0], {"id": "c1", "participants": [{"id": "p1", **who, "calls": [{"id": "m1", **leg}]}]}
            ),
            seconds=seconds,
            offset=offset,
        )
        for offset, (seconds, who, leg) in enumerate(shown)
    ]
    log = play(records).log
    assert all(each["source"]["topic"] == TOPIC for each in log)
    return [(each["op"], each["to"], each["context"], each["source"]["offset"]) for each in log]


def test_the_context_is_what_was_known_then() -> None:
    agent = {"purpose": "agent", "userId": "u1", "queueId": "q1"}
    ended = {"state": "disconnected", "disconnectedTime": at(9), "disconnectType": "peer"}
    assert told((1, {"purpose": "agent"}, {"state": "alerting"}), (9, agent, ended)) == [
        ("assert", "alerting", {"purpose": "agent"}, 0),
        ("assert", "disconnected", {"purpose": "agent", "userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
    ]


def test_a_correction_tells_what_is_known_now_in_retractions_and_assertions_alike() -> None:
    ended = {"state": "disconnected", "disconnectedTime": at(9), "disconnectType": "peer"}
    connected = {"state": "connected", "connectedTime": at(5)}
    assert told((9, {"userId": "u1"}, ended), (5, {"queueId": "q1"}, connected)) == [
        ("assert", "disconnected", {"userId": "u1", "disconnectType": "peer"}, 0),
        ("retract", "disconnected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
        ("assert", "connected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
        ("assert", "disconnected", {"userId": "u1", "queueId": "q1", "disconnectType": "peer"}, 1),
    ]
