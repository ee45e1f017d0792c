"""Where an entry of the flat shape counts, which has no communication id: whatever the order of arrival."""

import itertools
import json
from typing import Any

import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.view import communications as shown_communications
from consumer.runtime.tally import Tally
from tests import model
from tests.core.play import Played, play
from tests.strategies import BASE_MS, NESTED_TOPICS, at, make_record, websocket

FLAT_TOPIC = "v2.users.u1.conversations."


def nested(seconds: float, state: str, communication_id: str, session_id: str | None = None) -> Record:
    leg = {"id": communication_id, "state": state, "cobrowseSessionId": session_id}
    body = {"id": "c1", "participants": [{"id": "p1", "cobrowsesessions": [leg]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=round(seconds))


def flat(seconds: float, state: str, session_id: str | None = None) -> Record:
    body = {"id": "c1", "participants": [{"id": "p1", "state": state, "cobrowseSessionId": session_id}]}
    return make_record(websocket(FLAT_TOPIC + "cobrowsesessions", body), seconds=seconds, offset=round(seconds))


def communications(played: Played) -> list[dict[str, Any]]:
    (participant,) = json.loads(played.states["c1"])["participants"]
    found: list[dict[str, Any]] = participant["communications"]
    return found


def standings(played: Played) -> list[tuple[str | None, str | None]]:
    """(standing, joined to) of the entries of the flat shape."""
    return [
        (each["standing"], each.get("joinedTo")) for each in communications(played) if "communicationId" not in each
    ]


def lives(played: Played) -> dict[str | None, list[str]]:
    """The states of each communication in the order of the standing transitions."""
    found: dict[str | None, list[tuple[str, bool, str]]] = {}
    for each in model.net(played.log).values():
        found.setdefault(each["communicationId"], []).append((each["eventTime"], each["from"] is not None, each["to"]))
    return {uid: [state for _, _, state in sorted(steps)] for uid, steps in found.items()}


@pytest.mark.parametrize(
    ("records", "standing", "told"),
    [
        (
            [nested(1, "alerting", "m1", "s1"), nested(2, "alerting", "m2", "s2"), flat(3, "connected", "s2")],
            [("joined", "m2")],
            {"m1": ["alerting"], "m2": ["alerting", "connected"]},
        ),
        (
            [nested(1, "alerting", "m1", "s1"), nested(2, "alerting", "m2"), flat(3, "connected", "s3")],
            [("joined", "m2")],
            {"m1": ["alerting"], "m2": ["alerting", "connected"]},
        ),
        (
            [nested(1, "alerting", "m1"), nested(2, "alerting", "m2"), flat(3, "connected", "s3")],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        (
            [nested(1, "alerting", "m1", "s3"), nested(2, "alerting", "m2", "s3"), flat(3, "connected", "s3")],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        (
            [nested(1, "alerting", "m1", "s1"), flat(2, "alerting", "s2"), flat(3, "connected", "s2")],
            [("alone", None)],
            {"m1": ["alerting"], "digest": ["alerting", "connected"]},
        ),
        (
            [flat(1, "alerting", "s1"), flat(2, "connected", "s1"), nested(3, "disconnected", "m1")],
            [("joined", "m1")],
            {"m1": ["alerting", "connected", "disconnected"]},
        ),
        (
            [nested(1, "alerting", "m1"), nested(2, "alerting", "m1", "s1"), flat(3, "connected", "s2")],
            [("alone", None)],
            {"m1": ["alerting"], "digest": ["connected"]},
        ),
        (
            [nested(1, "alerting", "m1", "s1"), nested(2, "alerting", "m1", "s2"), flat(3, "connected", "s1")],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"]},
        ),
        (
            [
                nested(1, "alerting", "m1", "s1"),
                nested(2, "alerting", "m1", "s2"),
                nested(3, "alerting", "m2"),
                flat(4, "connected", "s1"),
            ],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"], "m2": ["alerting"]},
        ),
        (
            [
                nested(1, "alerting", "m1", "s1"),
                nested(2, "alerting", "m1", "s2"),
                nested(3, "alerting", "m2", "s1"),
                flat(4, "connected", "s1"),
            ],
            [("ambiguous", None)],
            {"m1": ["alerting"], "m2": ["alerting"]},
        ),
        ([flat(1, "alerting"), flat(2, "connected")], [("alone", None)], {None: ["alerting", "connected"]}),
        (
            [flat(1, "alerting"), nested(2, "connected", "m1", "s1")],
            [("joined", "m1")],
            {"m1": ["alerting", "connected"]},
        ),
        (
            [flat(1, "alerting"), nested(2, "connected", "m1", "s1"), nested(3, "connected", "m2")],
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
        "the session is told later",
        "a session shown before",
        "a session shown before, and one without a session",
        "a session shown before, by two",
        "alone without a session",
        "without a session",
        "without a session, two nested",
    ],
)
def test_a_flat_entry_counts_where_it_belongs(
    records: list[Record], standing: list[tuple[str, str | None]], told: dict[str | None, list[str]]
) -> None:
    for order in itertools.permutations(records):
        played = play(order)
        assert standings(played) == standing
        digest = next((each["sessionDigest"] for each in communications(played) if "sessionDigest" in each), None)
        assert lives(played) == {digest if uid == "digest" else uid: states for uid, states in told.items()}
        shown = [each for each in communications(played) if each.get("standing") not in {"joined", "ambiguous"}]
        document = json.loads(played.states["c1"])
        assert sum(document["communications"]["cobrowse"].values()) == len(shown) == len(told)
        assert document["live"] == sum(states[-1] != "disconnected" for states in told.values())


def test_an_entry_that_belongs_nowhere_is_told_as_odd() -> None:
    played = play([nested(1, "alerting", "m1"), nested(2, "alerting", "m2"), flat(3, "connected", "s3")])
    assert [each.notes for each in played.outcomes] == [(), (), ("ambiguous_communication",)]


def chat(seconds: float, state: str, communication_id: str = "m1", **shown: Any) -> Record:
    """A chat of the nested shape."""
    body = {"id": "c1", "participants": [{"id": "p1", "chats": [{"id": communication_id, "state": state} | shown]}]}
    return make_record(websocket(NESTED_TOPICS[0], body), seconds=seconds, offset=round(seconds))


def flat_chat(seconds: float, state: str, **shown: Any) -> Record:
    """A chat of the flat shape."""
    body = {"id": "c1", "participants": [{"id": "p1", "state": state} | shown]}
    return make_record(websocket(FLAT_TOPIC + "chats", body), seconds=seconds, offset=round(seconds))


CONNECTED = chat(5, "connected", connectedTime=at(4))
END = flat_chat(9, "disconnected", disconnectType="client", endTime=at(8), startAcwTime=at(8), endAcwTime=at(9))
ENDED = {"disconnectType": "client", "afterCallWorkStartTime": at(8), "afterCallWorkEndTime": at(9)}


def details(played: Played, communication_id: str = "m1") -> dict[str, Any]:
    """What counts of a communication's details."""
    (found,) = [each for each in communications(played) if each.get("communicationId") == communication_id]
    shown: dict[str, Any] = found["details"]
    return shown


@pytest.mark.parametrize("restored", [False, True])
def test_an_end_that_only_the_flat_shape_shows_has_its_details(restored: bool) -> None:  # noqa: FBT001
    """State, lookup, transition and metric tell why the session ended, whichever shape came first."""
    for order in itertools.permutations([CONNECTED, END, flat_chat(7, "connected", held=True)]):
        played = play(order, restored=restored)
        assert details(played) == ENDED | {"held": True}
        (view,) = shown_communications(played.known["c1"].state, Rules().park_cycles_max)
        assert (view.communication_id, view.state, view.disconnect_type) == ("m1", "disconnected", "client")
        ends = told_of_ends(played)
        assert [ends[each] for each in model.net(played.log) if each in ends] == ["client"]
        tally = Tally()
        for record, outcome in zip(order, played.outcomes, strict=True):
            tally.add(record, outcome, None, BASE_MS)
        assert set(tally.disconnects) == {("chat", "client")}


def told_of_ends(played: Played) -> dict[str, str | None]:
    """By transition id, with which disconnect type an end was asserted last."""
    return {
        each["id"]: each["context"].get("disconnectType")
        for each in played.log
        if each["op"] == "assert" and each["to"] == "disconnected"
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
        "the nested one is shown once more",
        "two nested ones",
    ],
)
def test_details_count_by_the_order_of_registers(records: list[Record], expected: dict[str, Any]) -> None:
    for order in itertools.permutations(records):
        for restored in (False, True):
            assert details(play(order, restored=restored)) == expected


def test_what_left_again_is_told_with_why_it_had_ended() -> None:
    """The end was published for the entry alone; it is retracted with what was known of it."""
    log = play([END, CONNECTED]).log
    told = [(each["op"], each["communicationId"], each["to"], each["context"].get("disconnectType")) for each in log]
    assert told == [
        ("assert", None, "disconnected", "client"),
        ("retract", None, "disconnected", "client"),
        ("assert", "m1", "connected", "client"),
        ("assert", "m1", "disconnected", "client"),
    ]
