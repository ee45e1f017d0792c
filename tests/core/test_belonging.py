"""Where an entry of the flat shape counts, which has no communication id: whatever the order of arrival."""

import itertools
import json
from typing import Any

import pytest

from consumer.core.record import Record
from tests import model
from tests.core.play import Played, play
from tests.strategies import NESTED_TOPICS, make_record, websocket

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
