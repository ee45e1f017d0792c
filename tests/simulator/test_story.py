"""The lifecycles of conversations, as the snapshots of one seed show them in the order of the events."""

from collections import defaultdict
from datetime import datetime
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest

from consumer.simulator.traffic import Traffic, records

ARRAYS = [
    "calls",
    "callbacks",
    "chats",
    "cobrowsesessions",
    "emails",
    "internalMessages",
    "messages",
    "screenMonitorings",
    "screenshares",
    "socialExpressions",
    "videos",
]
RANKS = {"connected": 1, "parked": 1, "disconnected": 2, "terminated": 3}
Snapshot = dict[str, Any]
Leg = dict[str, Any]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


@pytest.fixture(scope="module")
def conversations() -> dict[str, list[Snapshot]]:
    traffic = Traffic(disorder=0, duplicates=0, broken=0, ignorable=0, flat=0, eventbridge=0, bare=1, conversations=50)
    snapshots = defaultdict(list)
    for draft in islice(records(traffic), 12_000):
        body = msgspec.json.decode(draft.value)
        snapshots[body["id"]].append(body | {"at": draft.event_ms})
    return dict(snapshots)


@pytest.fixture(scope="module")
def legs(conversations: dict[str, list[Snapshot]]) -> dict[tuple[str, str], list[Leg]]:
    """Every communication as the snapshots show it, one after the other, by (array, id)."""
    legs = defaultdict(list)
    for snapshots in conversations.values():
        for snapshot in snapshots:
            for participant in snapshot["participants"]:
                for array in ARRAYS:
                    for leg in participant.get(array, ()):
                        dated = leg | {"at": snapshot["at"], "purpose": participant["purpose"]}
                        legs[array, leg["id"]].append(dated)
    return dict(legs)


def states(versions: list[Leg]) -> list[str]:
    """The states that a communication passes, without repetitions."""
    shown = [leg["state"] for leg in versions]
    return [shown[0]] + [after for before, after in pairwise(shown) if before != after]


def test_all_media_occur(legs: dict[tuple[str, str], list[Leg]]) -> None:
    assert {array for array, _ in legs} == set(ARRAYS)


def test_no_array_is_empty(conversations: dict[str, list[Snapshot]]) -> None:
    participants = [p for snapshots in conversations.values() for s in snapshots for p in s["participants"]]

    assert not [p for p in participants for array in ARRAYS if p.get(array) == []]
    assert any(p.get("queue") == {} for p in participants)


def test_states_move_forward_apart_from_parked_and_back(legs: dict[tuple[str, str], list[Leg]]) -> None:
    for versions in legs.values():
        ranks = [RANKS.get(leg["state"], 0) for leg in versions]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("array", "passed"),
    [
        ("calls", ["alerting", "connected", "disconnected", "terminated"]),
        ("calls", ["contacting", "dialing", "connected", "disconnected", "terminated"]),
        ("calls", ["alerting", "disconnected", "terminated"]),
        ("callbacks", ["scheduled", "connected", "disconnected", "terminated"]),
        ("messages", ["alerting", "connected", "parked", "connected", "disconnected"]),
        ("emails", ["alerting", "connected", "disconnected"]),
        ("cobrowsesessions", ["alerting", "connected", "disconnected", "terminated"]),
        ("cobrowsesessions", ["alerting", "disconnected", "terminated"]),
        ("internalMessages", ["alerting", "connected", "disconnected"]),
        ("screenMonitorings", ["none", "connected", "disconnected"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_lifecycle_occurs(legs: dict[tuple[str, str], list[Leg]], array: str, passed: list[str]) -> None:
    assert passed in [states(versions) for (medium, _), versions in legs.items() if medium == array]


def test_a_snapshot_keeps_all_earlier_participants(conversations: dict[str, list[Snapshot]]) -> None:
    for snapshots in conversations.values():
        for before, after in pairwise(snapshots):
            earlier = {p["id"] for p in before["participants"]}
            assert earlier <= {p["id"] for p in after["participants"]}


def test_agents_that_do_not_answer_are_alerted_under_new_ids(
    conversations: dict[str, list[Snapshot]],
) -> None:
    kinds = set()
    for snapshots in conversations.values():
        agents = [p for p in snapshots[-1]["participants"] if p["purpose"] == "agent" and "queueId" in p]
        for before, after in pairwise(agents):
            array = next(array for array in ARRAYS if array in before)
            if before["userId"] == after["userId"] and "connectedTime" not in before:
                kinds.add(before[array][0]["disconnectType"])
                assert before["id"] != after["id"]
                assert before[array][0]["id"] != after[array][0]["id"]

    assert kinds == {"client", "system"}


def test_the_time_of_a_park_stays_after_the_resume(legs: dict[tuple[str, str], list[Leg]]) -> None:
    resumed = 0
    for versions in legs.values():
        for before, after in pairwise(versions):
            if before["state"] == "parked" and after["state"] == "connected":
                assert after["parkTime"] == before["parkTime"]
                resumed += 1

    assert resumed


def test_a_thread_reopens_with_new_communications(conversations: dict[str, list[Snapshot]]) -> None:
    reopened = 0
    for snapshots in conversations.values():
        messages = [
            p["messages"] for p in snapshots[-1]["participants"] if p["purpose"] == "customer" and "messages" in p
        ]
        if messages and len(messages[0]) == 2:
            first, second = messages[0]
            assert first["state"] == "disconnected"
            assert ms(second["connectedTime"]) > ms(first["disconnectedTime"])
            reopened += 1

    assert reopened


def test_after_call_work_completes_while_the_state_stands(
    legs: dict[tuple[str, str], list[Leg]],
) -> None:
    completed = 0
    for versions in legs.values():
        pending = [leg for leg in versions if leg.get("afterCallWork", {}).get("state") == "pending"]
        complete = [leg for leg in versions if leg.get("afterCallWork", {}).get("state") == "complete"]
        if pending and complete:
            assert pending[-1]["state"] == complete[0]["state"]
            assert {leg["state"] for leg in (*pending, *complete)} <= {"disconnected", "terminated"}
            assert {"code", "notes"} <= complete[0]["wrapup"].keys()
            completed += 1

    assert completed


def test_cobrowse_has_two_legs_beside_calls_or_messages(
    conversations: dict[str, list[Snapshot]],
) -> None:
    arrays = set()
    for snapshots in conversations.values():
        sides = defaultdict(set)
        for participant in snapshots[-1]["participants"]:
            for leg in participant.get("cobrowsesessions", ()):
                sides[leg["cobrowseSessionId"]].add((participant["purpose"], leg["cobrowseRole"]))
                assert ("viewerUrl" in leg) <= (leg["cobrowseRole"] == "viewer")
                arrays |= {array for array in ARRAYS if array in participant}
        for roles in sides.values():
            assert roles == {("customer", "sharer"), ("agent", "viewer")}

    assert arrays == {"calls", "messages", "cobrowsesessions"}


def test_every_change_of_a_cobrowse_session_has_its_own_time(legs: dict[tuple[str, str], list[Leg]]) -> None:
    used = ("state", "controlling", "viewerUrl", "connectedTime", "disconnectedTime")
    for (array, _), versions in legs.items():
        if array != "cobrowsesessions":
            continue
        assert ms(versions[0]["providerEventTime"]) == versions[0]["at"]
        for before, after in pairwise(versions):
            if any(before.get(name) != after.get(name) for name in used):
                assert ms(after["providerEventTime"]) == after["at"]


def test_control_changes_long_after_the_connect(legs: dict[tuple[str, str], list[Leg]]) -> None:
    late = 0
    for (array, _), versions in legs.items():
        if array == "cobrowsesessions":
            connected = [leg for leg in versions if leg["state"] == "connected"]
            late += any(ms(leg["providerEventTime"]) > ms(leg["connectedTime"]) + 2_000 for leg in connected)

    assert late


def test_calls_are_held_and_muted_and_transferred(conversations: dict[str, list[Snapshot]]) -> None:
    calls = [
        leg
        for snapshots in conversations.values()
        for s in snapshots
        for p in s["participants"]
        for leg in p.get("calls", ())
    ]

    assert any(leg["held"] for leg in calls)
    assert any(leg["muted"] for leg in calls)
    assert any(leg.get("disconnectType") == "transfer" for leg in calls)
    assert any("recentTransfers" in s for snapshots in conversations.values() for s in snapshots)
