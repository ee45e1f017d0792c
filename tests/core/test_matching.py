"""A flat communication counts under the same nested one in any order of arrival."""

import itertools
import json
from typing import Any

import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.commit_stats import CommitStats
from consumer.query.timeline_view import communications as view_communications
from tests import model
from tests.core.play import Played, play
from tests.strategies import BASE_MS, NESTED_TOPICS, at, make_record, websocket

FLAT_TOPIC = "v2.users.u1.conversations."


def make_nested(seconds: float, state: str, communication_id: str, session_id: str | None = None) -> Record:
    leg = {"id": communication_id, "state": state, "cobrowseSessionId": session_id}
    body = {"id": "c1", "participants": [{"id": "p1", "cobrowsesessions": [leg]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=round(seconds))


def flat(seconds: float, state: str, session_id: str | None = None) -> Record:
    body = {"id": "c1", "participants": [{"id": "p1", "state": state, "cobrowseSessionId": session_id}]}
    return make_record(websocket(FLAT_TOPIC + "cobrowsesessions", body), seconds=seconds, offset=round(seconds))


def communications(played: Played) -> list[dict[str, Any]]:
    (participant,) = json.loads(played.states["c1"])["participants"]
    listed: list[dict[str, Any]] = participant["communications"]
    return listed


def standings(played: Played) -> list[tuple[str | None, str | None]]:
    """(standing, joined to) of the entries of the flat shape."""
    return [
        (communication["standing"], communication.get("joinedTo"))
        for communication in communications(played)
        if "communicationId" not in communication
    ]


def states(played: Played) -> dict[str | None, list[str]]:
    """The states of each communication in the order of the standing transitions."""
    steps: dict[str | None, list[tuple[str, bool, str]]] = {}
    for transition in model.net(played.log).values():
        step = (transition["eventTime"], transition["from"] is not None, transition["to"])
        steps.setdefault(transition["communicationId"], []).append(step)
    return {
        communication_id: [state for _, _, state in sorted(unsorted)] for communication_id, unsorted in steps.items()
    }


@pytest.mark.parametrize(
    ("records", "standing", "expected"),
    [
        (
            [
                make_nested(1, "alerting", "m1", "s1"),
                make_nested(2, "alerting", "m2", "s2"),
                flat(3, "connected", "s2"),
            ],
            [("joined", "m2")],
            {"m1": ["alerting"], "m2": ["alerting", "connected"]},
        ),
        (
            [make_nested(1, "alerting", "m1", "s1"), make_nested(2, "alerting", "m2"), flat(3, "connected", "s3")],
            [("joined", "m2")],
            {"m1": ["alerting"], "m2": ["alerting", "connected"]},
        ),
        (
            [make_nested(1, "alerting", "m1"), make_nested(2, "alerting", "m2"), flat(3, "connected", "s3")],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        (
            [
                make_nested(1, "alerting", "m1", "s3"),
                make_nested(2, "alerting", "m2", "s3"),
                flat(3, "connected", "s3"),
            ],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        (
            [make_nested(1, "alerting", "m1", "s1"), flat(2, "alerting", "s2"), flat(3, "connected", "s2")],
            [("alone", None)],
            {"m1": ["alerting"], "digest": ["alerting", "connected"]},
        ),
        (
            [flat(1, "alerting", "s1"), flat(2, "connected", "s1"), make_nested(3, "disconnected", "m1")],
            [("joined", "m1")],
            {"m1": ["alerting", "connected", "disconnected"]},
        ),
        (
            [make_nested(1, "alerting", "m1"), make_nested(2, "alerting", "m1", "s1"), flat(3, "connected", "s2")],
            [("alone", None)],
            {"m1": ["alerting"], "digest": ["connected"]},
        ),
        (
            [
                make_nested(1, "alerting", "m1", "s1"),
                make_nested(2, "alerting", "m1", "s2"),
                flat(3, "connected", "s1"),
            ],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"]},
        ),
        (
            [
                make_nested(1, "alerting", "m1", "s1"),
                make_nested(2, "alerting", "m1", "s2"),
                make_nested(3, "alerting", "m2"),
                flat(4, "connected", "s1"),
            ],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"], "m2": ["alerting"]},
        ),
        (
            [
                make_nested(1, "alerting", "m1", "s1"),
                make_nested(2, "alerting", "m1", "s2"),
                make_nested(3, "alerting", "m2", "s1"),
                flat(4, "connected", "s1"),
            ],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        ([flat(1, "alerting"), flat(2, "connected")], [("alone", None)], {None: ["alerting", "connected"]}),
        (
            [flat(1, "alerting"), make_nested(2, "connected", "m1", "s1")],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"]},
        ),
        (
            [flat(1, "alerting"), make_nested(2, "connected", "m1", "s1"), make_nested(3, "connected", "m2")],
            [("ambiguous", None)],
            {"m1": ["connected"], "m2": ["connected"]},
        ),
    ],
    ids=[
        "the same session",
        "the one without a session",
        "two without a session",
        "two of the same session",
        "another session",
        "the nested one comes last",
        "the session is shown later",
        "a session shown before",
        "a session shown before, and one without a session",
        "a session shown before, by two",
        "alone without a session",
        "without a session",
        "without a session, two nested",
    ],
)
def test_a_flat_communication_counts_under_its_match(
    records: list[Record], standing: list[tuple[str, str | None]], expected: dict[str | None, list[str]]
) -> None:
    for order in itertools.permutations(records):
        played = play(order)
        assert standings(played) == standing
        listed = communications(played)
        digest = next((entry["sessionDigest"] for entry in listed if "sessionDigest" in entry), None)
        assert states(played) == {digest if key == "digest" else key: expected[key] for key in expected}
        counting = [entry for entry in listed if entry.get("standing") not in {"joined", "ambiguous"}]
        document = json.loads(played.states["c1"])
        assert sum(document["communications"]["cobrowse"].values()) == len(counting) == len(expected)
        assert document["live"] == sum(entered[-1] != "disconnected" for entered in expected.values())


def test_an_ambiguous_communication_is_an_anomaly() -> None:
    played = play([make_nested(1, "alerting", "m1"), make_nested(2, "alerting", "m2"), flat(3, "connected", "s3")])
    assert [outcome.anomalies for outcome in played.outcomes] == [(), (), ("ambiguous_communication",)]


def chat(seconds: float, state: str, communication_id: str = "m1", **members: Any) -> Record:
    """A chat of the nested shape."""
    body = {"id": "c1", "participants": [{"id": "p1", "chats": [{"id": communication_id, "state": state} | members]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=round(seconds))


def flat_chat(seconds: float, state: str, **members: Any) -> Record:
    """A chat of the flat shape."""
    body = {"id": "c1", "participants": [{"id": "p1", "state": state} | members]}
    return make_record(websocket(FLAT_TOPIC + "chats", body), seconds=seconds, offset=round(seconds))


CONNECTED = chat(5, "connected", connectedTime=at(4))
END = flat_chat(9, "disconnected", disconnectType="client", endTime=at(8), startAcwTime=at(8), endAcwTime=at(9))
ENDED = {"disconnectType": "client", "afterCallWorkStartTime": at(8), "afterCallWorkEndTime": at(9)}


def details(played: Played, communication_id: str = "m1") -> dict[str, Any]:
    """The details of a nested communication, with those of what joined it."""
    (communication,) = [entry for entry in communications(played) if entry.get("communicationId") == communication_id]
    counting: dict[str, Any] = communication["details"]
    return counting


@pytest.mark.parametrize("restored", [False, True])
def test_an_end_that_only_the_flat_shape_shows_has_details(restored: bool) -> None:  # noqa: FBT001
    """State, lookup, transition and metric have the disconnect type, whichever shape came first."""
    for order in itertools.permutations([CONNECTED, END, flat_chat(7, "connected", held=True)]):
        played = play(order, restored=restored)
        assert details(played) == ENDED | {"held": True}
        (view,) = view_communications(played.known["c1"].state, Rules().park_cycles_max)
        assert (view.communication_id, view.state, view.disconnect_type) == ("m1", "disconnected", "client")
        types = asserted_disconnect_types(played)
        assert [types[transition] for transition in model.net(played.log) if transition in types] == ["client"]
        stats = CommitStats()
        for record, outcome in zip(order, played.outcomes, strict=True):
            stats.add(record, outcome, None, BASE_MS)
        assert set(stats.disconnects) == {("chat", "client")}


def asserted_disconnect_types(played: Played) -> dict[str, str | None]:
    """By transition id, the disconnect type with which an end was last asserted."""
    return {
        transition["id"]: transition["context"].get("disconnectType")
        for transition in played.log
        if transition["op"] == "assert" and transition["to"] == "disconnected"
    }


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([CONNECTED, END, chat(10, "disconnected", disconnectType="peer")], ENDED),
        ([CONNECTED, END, chat(8, "disconnected", disconnectType="peer", disconnectedTime=at(8))], ENDED),
        (
            [CONNECTED, END, chat(9, "disconnected", disconnectType="peer", disconnectedTime=at(9))],
            ENDED | {"disconnectType": "peer"},
        ),
        ([CONNECTED, END, chat(10, "connected", disconnectType="peer")], ENDED),
        ([CONNECTED, END, chat(20, "terminated", disconnectType="peer")], ENDED | {"disconnectType": "peer"}),
        ([CONNECTED, END, chat(20, "terminated")], ENDED),
        (
            [chat(5, "connected", held=True), flat_chat(5, "connected", held=False)],
            {"held": True},
        ),
        (
            [chat(5, "connected", held=False), chat(6, "connected", held=False), flat_chat(5, "connected", held=True)],
            {"held": False},
        ),
        ([chat(5, "connected", held=False), END, chat(6, "connected", "m2")], {"held": False}),
    ],
    ids=[
        "a newer snapshot that shows no time of the end",
        "no after-call work yet",
        "the later snapshot, the same own time",
        "the state that stands",
        "a later state",
        "a later state without it",
        "the greater value of the same version",
        "the nested one is shown again",
        "two nested ones",
    ],
)
def test_joined_details_are_merged_by_version(records: list[Record], expected: dict[str, Any]) -> None:
    for order in itertools.permutations(records):
        for restored in (False, True):
            assert details(play(order, restored=restored)) == expected


def test_retractions_of_a_joined_end_have_its_disconnect_type() -> None:
    """The end was published for the entry alone; once that joins, it is retracted with what was known of it."""
    log = play([END, CONNECTED]).log
    published = [
        (
            transition["op"],
            transition["communicationId"],
            transition["to"],
            transition["context"].get("disconnectType"),
        )
        for transition in log
    ]
    assert published == [
        ("assert", None, "disconnected", "client"),
        ("retract", None, "disconnected", "client"),
        ("assert", "m1", "connected", "client"),
        ("assert", "m1", "disconnected", "client"),
    ]
