"""Applying a snapshot: what is returned, and the summary of the state."""

import json
import random
from typing import Any

import pytest

from consumer.core import conversation
from consumer.core.conversation import Applied
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode
from schemas.state import Source
from tests.core.play import play
from tests.strategies import NESTED_TOPICS, at, make_record, websocket

RULES = Rules()


def snap(participants: list[Any], seconds: float, topic: str = NESTED_TOPICS[0]) -> Snapshot:
    snapshot = decode(make_record(websocket(topic, {"id": "c1", "participants": participants}), seconds=seconds), RULES)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def apply(before: Applied | None, snapshot: Snapshot) -> Applied:
    source = Source("in", 0, snapshot.time_ms)
    if before is None:
        return conversation.apply(conversation.empty(snapshot, source), {}, snapshot, source, RULES)
    return conversation.apply(before.state, before.update_cache, snapshot, source, RULES)


def agent(user_id: str | None = "u1", state: str = "connected", **members: Any) -> list[Any]:
    call = {"id": "m1", "state": state, "connectedTime": at(1), **members}
    return [{"id": "p1", "userId": user_id, "calls": [call]}]


def test_the_same_snapshot_again_changes_nothing() -> None:
    first = apply(None, snap(agent(), 5))
    assert [change.communication_id for change in first.changes] == ["m1"]
    again = apply(first, snap(agent(), 5))
    assert again.state is first.state
    assert (again.changes, again.anomalies) == ([], [])


def test_a_newer_repetition_changes_only_times() -> None:
    first = apply(None, snap(agent(), 5))
    repeated = apply(first, snap(agent(), 9))
    assert repeated.changes == []
    assert repeated.state.snapshot_time == at(9)
    (before,), (after,) = first.state.participants, repeated.state.participants
    assert after.snapshot_time == at(9)
    assert after.communications is before.communications


def test_the_cache_holds_updates_whose_values_are_all_current() -> None:
    """An older update is not cached, nor one that shows an earlier state than the one that stands."""
    first = apply(None, snap(agent(), 5))
    assert list(first.update_cache) == ["p1"]
    newer = apply(first, snap(agent("u2"), 7))
    assert newer.update_cache["p1"].details.user_id == "u2"
    older = apply(newer, snap(agent("u3", "alerting"), 3))
    assert older.state.participants[0].details.user_id == "u2"
    assert older.update_cache == {}
    ended = apply(first, snap(agent(state="disconnected"), 7))
    assert apply(ended, snap(agent("u2"), 8)).update_cache == {}
    assert apply(ended, snap(agent("u2", muted=True), 8)).update_cache == {}


@pytest.mark.parametrize(
    ("participants", "is_usable"), [([], True), ([None], True), ([{}], False), ([None, {"id": ""}], False)]
)
def test_a_snapshot_is_usable_unless_no_participant_has_an_id(
    participants: list[Any],
    is_usable: bool,  # noqa: FBT001 - a column
) -> None:
    assert apply(None, snap(participants, 5)).is_usable == is_usable


def test_anomalies_of_participants_and_of_the_fold_are_returned() -> None:
    sessions = [{"id": name, "state": "alerting"} for name in ("m1", "m2", "")]
    first = apply(None, snap([{"id": "p1", "cobrowsesessions": sessions}, {"calls": []}], 5))
    assert sorted(first.anomalies) == ["communication_without_id", "participant_without_id"]
    flat = snap([{"id": "p1", "state": "connected"}], 6, "v2.users.u1.conversations.cobrowsesessions")
    assert apply(first, flat).anomalies == ["ambiguous_communication"]


def play_twice(*participants: dict[str, Any]) -> dict[str, Any]:
    """The state after a snapshot with these participants, and one without any a minute later."""
    records = [
        make_record(websocket(NESTED_TOPICS[0], {"id": "c1", "participants": listed}), seconds=seconds, offset=offset)
        for offset, (seconds, listed) in enumerate([(100, participants), (160, [])])
    ]
    played = play(records)
    assert [outcome.disposition for outcome in played.outcomes] == ["applied", "applied"]
    state: dict[str, Any] = json.loads(played.states["c1"])
    return state


def test_summary_counts_communications_and_lists_when_live_began() -> None:
    """Every time is listed once, sorted; ended communications and those without a state are left out."""
    begun = list(range(1, 21))
    random.Random(1).shuffle(begun)
    calls = [{"id": f"m{second}", "state": "connected", "connectedTime": at(second)} for second in begun]
    ended = {"id": "m30", "state": "disconnected", "connectedTime": at(1), "disconnectedTime": at(30)}
    chat = {"id": "m31", "state": "alerting"}
    stateless = {"id": "m32"}
    state = play_twice(
        {"id": "p2", "chats": [chat, stateless], "calls": calls}, {"id": "p1", "calls": [*calls[:5], ended]}
    )
    assert state["live"] == 26
    assert state["communications"] == {"call": {"connected": 25, "disconnected": 1}, "chat": {"alerting": 1}}
    assert state["liveSince"] == {"call": [at(second) for second in sorted(begun)], "chat": [at(100)]}
    assert [participant["participantId"] for participant in state["participants"]] == ["p1", "p2"]
    communications = state["participants"][1]["communications"]
    listed = [(communication["media"], communication["communicationId"]) for communication in communications]
    assert listed == sorted(listed)
    assert len(listed) == 21
    assert [list(state[name]) for name in ("communications", "liveSince")] == [["call", "chat"]] * 2


def test_a_snapshot_without_participants_moves_the_snapshot_time() -> None:
    """It is the newest of the conversation, and not of a participant."""
    state = play_twice({"id": "p1"})
    assert (state["snapshotTime"], state["participants"][0]["snapshotTime"]) == (at(160), at(100))
