"""Whose id, topic and time an envelope tells, where a part of it is missing or broken."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core import times
from consumer.core.decode import SNAPSHOT_TIME_HEADER, Identity, Ignored, Rejected, Snapshot, decode, identify
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.runtime.republish import rekeyed
from tests import model
from tests.core.play import play
from tests.strategies import BASE_MS, NESTED_TOPICS, OTHER_TOPICS, at, eventbridge, make_record, websocket

RULES = Rules(key_mismatch="apply")
BODY: dict[str, Any] = {"id": "c1", "participants": []}
ENVELOPE = {"id": "e1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}


@pytest.mark.parametrize(
    "document",
    [
        websocket(NESTED_TOPICS[0], None) | ENVELOPE,
        eventbridge(NESTED_TOPICS[0], {}) | ENVELOPE | {"detail": None},
        eventbridge(NESTED_TOPICS[0], None) | ENVELOPE,
    ],
    ids=["WebSocket", "EventBridge without detail", "EventBridge without body"],
)
def test_an_envelope_without_a_body_is_none_itself(document: dict[str, Any]) -> None:
    record = make_record(document, key="e1")
    assert identify(record, RULES) is None
    found = decode(record, RULES)
    assert isinstance(found, Rejected)
    assert found.reason == "no_conversation_id"


BROKEN = {"id": 5}


@pytest.mark.parametrize(
    "document",
    [
        websocket(OTHER_TOPICS[0], BROKEN),
        eventbridge(OTHER_TOPICS[0], BROKEN),
        eventbridge(OTHER_TOPICS[0], BROKEN) | {"detail": {"eventBody": BROKEN}},
        {"detail-type": OTHER_TOPICS[0], "eventBody": BROKEN},
    ],
    ids=["WebSocket", "EventBridge", "EventBridge without topic", "no detail"],
)
def test_what_is_none_of_our_business_is_ignored_even_if_it_cannot_be_decoded(document: dict[str, Any]) -> None:
    assert decode(make_record(document), RULES) == Ignored("heartbeat")


@pytest.mark.parametrize(
    "document",
    [
        websocket(NESTED_TOPICS[0], BROKEN),
        eventbridge(NESTED_TOPICS[0], BROKEN),
        eventbridge(OTHER_TOPICS[0], BROKEN) | {"detail": {"topicName": NESTED_TOPICS[0], "eventBody": BROKEN}},
        BROKEN,
    ],
    ids=["WebSocket", "EventBridge", "EventBridge of two minds", "no topic"],
)
def test_a_conversation_update_that_cannot_be_decoded_is_rejected(document: dict[str, Any]) -> None:
    found = decode(make_record(document), RULES)
    assert isinstance(found, Rejected)
    assert found.reason == "wrong_type"


def test_the_topic_within_an_event_decides() -> None:
    body = {"id": "c1", "participants": [{"id": "p1", "state": "connected"}]}
    nested, flat = NESTED_TOPICS[0], "v2.users.u1.conversations.calls"
    for outer, inner, template in ((flat, nested, nested), (nested, flat, flat), (OTHER_TOPICS[0], nested, nested)):
        document = eventbridge(outer, body)
        document["detail"]["topicName"] = inner
        found = decode(make_record(document), RULES)
        assert isinstance(found, Snapshot)
        assert found.template == template.replace("u1", "{id}")


@pytest.mark.parametrize(
    ("participants", "is_flat"),
    [
        ([{"id": "p1", "state": "connected"}], True),
        ([None, {"id": "p1", "state": "connected"}], True),
        ([{"id": "p1"}, {"id": "p2", "state": "connected"}], True),
        ([{"id": "p1", "state": "connected"}, {"id": "p2", "calls": []}], False),
        ([{"id": "p1", "state": ""}, {"id": "p1", "state": None}, {"id": "p2"}], False),
        ([None], False),
        ([], False),
    ],
)
def test_a_flat_body_whose_medium_nobody_tells_is_ignored(participants: list[Any], is_flat: bool) -> None:  # noqa: FBT001 - a column
    found = decode(make_record({"id": "c1", "participants": participants}), RULES)
    assert isinstance(found, Snapshot) != is_flat
    assert (found == Ignored("bare_flat")) == is_flat


def test_an_event_of_nothing_is_no_conversation() -> None:
    found = decode(make_record({"detail": {}}), RULES)
    assert isinstance(found, Rejected)
    assert found.reason == "no_conversation_id"


@pytest.mark.parametrize("sign", ["result", "status"])
@pytest.mark.parametrize(
    ("members", "is_reply"), [({}, True), ({"id": "c1"}, False), ({"participants": [], "id": ""}, False)]
)
def test_a_reply_to_a_subscription_shows_neither_an_id_nor_participants(
    sign: str,
    members: dict[str, Any],
    is_reply: bool,  # noqa: FBT001 - a column
) -> None:
    found = decode(make_record({sign: "ok", **members}), RULES)
    assert (found == Ignored("subscription_reply")) == is_reply


@pytest.mark.parametrize(
    ("timestamp", "seconds"), [(at(7), 7), (None, 60), ("2009-12-31T23:59:59.999Z", 60), (at(60 + 86_400.001), 60)]
)
def test_an_event_tells_its_time_if_it_can_be_true(timestamp: str | None, seconds: int) -> None:
    record = make_record(eventbridge(NESTED_TOPICS[0], {"id": "c1", "participants": []}, timestamp), seconds=60)
    found = decode(record, RULES)
    assert isinstance(found, Snapshot)
    assert found.time_ms == BASE_MS + seconds * 1_000


@pytest.mark.parametrize(
    ("stamp", "found_ms"),
    [
        (str(BASE_MS - 5_000), BASE_MS - 5_000),
        (str(BASE_MS + times.DAY_MS), BASE_MS + times.DAY_MS),
        (str(BASE_MS + times.DAY_MS + 1), BASE_MS),
        (str(times.EARLIEST_MS), times.EARLIEST_MS),
        (str(times.EARLIEST_MS - 1), BASE_MS),
        (f"{BASE_MS - 5_000:015}", BASE_MS - 5_000),
        (f"{BASE_MS - 5_000:016}", BASE_MS),
        ("-1", BASE_MS),
        ("", BASE_MS),
        (None, BASE_MS),
    ],
)
def test_our_own_header_tells_the_snapshot_time_if_it_can_be_true(stamp: str | None, found_ms: int) -> None:
    another = ("another", str(BASE_MS + 1).encode())
    headers = (another, (SNAPSHOT_TIME_HEADER, None if stamp is None else stamp.encode()), another)
    found = decode(make_record({"id": "c1"}, headers=headers), RULES)
    assert isinstance(found, Snapshot)
    assert found.time_ms == found_ms


@pytest.mark.parametrize(
    ("timestamp_ms", "is_used"),
    [
        (times.EARLIEST_MS - 1, False),
        (times.EARLIEST_MS, True),
        (times.LATEST_MS, True),
        (times.LATEST_MS + 1, False),
        (-1, False),
    ],
)
def test_a_timestamp_that_no_text_can_show_is_none(timestamp_ms: int, is_used: bool) -> None:  # noqa: FBT001 - a column
    record = replace(make_record({"id": "c1", "participants": []}), timestamp_ms=timestamp_ms)
    assert decode(record, RULES) == (
        Snapshot("c1", timestamp_ms, times.text(timestamp_ms), "none", "fits", [])
        if is_used
        else Rejected("no_time", "no readable snapshot time")
    )
    later = str(timestamp_ms + 1).encode()
    identity = identify(replace(record, headers=((SNAPSHOT_TIME_HEADER, later),)), RULES)
    assert identity is not None
    assert (identity.time_ms == timestamp_ms + 1) == (times.EARLIEST_MS <= timestamp_ms + 1 <= times.LATEST_MS)


NO_TIMESTAMPS = (-1, 0, BASE_MS // 1_000, times.EARLIEST_MS - 1)


@pytest.mark.parametrize("timestamp_ms", NO_TIMESTAMPS)
def test_a_timestamp_that_says_nothing_disproves_nothing(timestamp_ms: int) -> None:
    """Where the record has none of its own, EventBridge's time and our own header need not be near it."""
    event = replace(make_record(eventbridge(NESTED_TOPICS[0], BODY, at(7))), timestamp_ms=timestamp_ms)
    headers = ((SNAPSHOT_TIME_HEADER, str(BASE_MS + 9_000).encode()),)
    for record, seconds in ((event, 7), (replace(event, headers=headers), 9)):
        found, identity = decode(record, RULES), identify(record, RULES)
        assert isinstance(found, Snapshot)
        assert (found.time_ms, found.notes) == (BASE_MS + seconds * 1_000, ())
        assert identity is not None
        assert identity.time_ms == found.time_ms


def dated(array: str = "cobrowsesessions", **shown: Any) -> dict[str, Any]:
    """A conversation with a participant that shows times, and one that shows none."""
    leg = {"id": "m1", "state": "connected", **shown}
    return {"id": "c1", "participants": [None, {"id": "p1", array: [leg]}, {"id": "p2", "calls": [{"id": "m2"}]}]}


BODY_TIMES = [
    (dated(connectedTime=at(5)), 5),
    (dated(connectedTime=at(5), providerEventTime=at(9)), 9),
    (dated(state="disconnected", connectedTime=at(5), disconnectedTime=at(8)), 8),
    (dated("messages", connectedTime=at(5), parkTime=at(6), resumeTime=at(3_600)), 6),
    (dated(connectedTime=at(5), afterCallWork={"startTime": at(11), "endTime": at(12)}), 12),
    (dated(connectedTime=at(5), providerEventTime="soon", disconnectedTime="9999-12-31T23:59:59.999-23:59"), 5),
    (dated(connectedTime="2009-12-31T23:59:59.999Z", providerEventTime=at(4)), 4),
    (dated(), None),
    (dated(connectedTime=0, providerEventTime="soon"), None),
    (dated("calls", parkTime=at(5), providerEventTime=at(6)), None),
    (dated(id=None, connectedTime=at(5)), None),
    (dated(state=None, connectedTime=at(5)), None),
    ({"id": "c1", "participants": []}, None),
    ({"id": "c1"}, None),
]


@pytest.mark.parametrize("timestamp_ms", NO_TIMESTAMPS)
@pytest.mark.parametrize(("body", "seconds"), BODY_TIMES)
def test_a_body_tells_the_time_where_nothing_else_does(
    timestamp_ms: int, body: dict[str, Any], seconds: int | None
) -> None:
    """It is the newest plausible one of those that are used, and counted as odd."""
    record = replace(make_record(websocket(NESTED_TOPICS[0], body)), timestamp_ms=timestamp_ms)
    (outcome,) = play([record]).outcomes
    identity, verdict = identify(record, RULES), model.judge(record, model.Rules())
    assert identity is not None
    if seconds is None:
        assert (outcome.disposition, outcome.reason) == ("dead_lettered", "no_time")
        assert identity.time_ms is None
        assert verdict == model.Rejected("no_time")
    else:
        assert outcome.snapshot_ms == identity.time_ms == BASE_MS + seconds * 1_000
        assert outcome.notes.count("time_of_body") == 1
        assert isinstance(verdict, model.Sight)
        assert verdict.snapshot_ms == outcome.snapshot_ms
    assert "time_of_body" not in play([make_record(websocket(NESTED_TOPICS[0], body))]).outcomes[0].notes


def test_a_flat_body_tells_the_time_as_well() -> None:
    who = {"id": "p1", "state": "disconnected", "endTime": at(5), "startAcwTime": at(7), "providerEventTime": at(9)}
    document = websocket("v2.users.u1.conversations.calls", {"id": "c1", "participants": [who]})
    record = replace(make_record(document), timestamp_ms=-1)
    found, identity = decode(record, RULES), identify(record, RULES)
    assert isinstance(found, Snapshot)
    assert identity is not None
    assert found.time_ms == identity.time_ms == BASE_MS + 7_000


def test_a_copy_tells_the_time_that_was_taken_from_a_body() -> None:
    """The header says it once the record has a timestamp of the copy's broker."""
    record = replace(make_record(dated(connectedTime=at(5))), timestamp_ms=-1)
    copy = rekeyed(record, "copy", RULES).copy
    copied = Record("copy", 0, 0, BASE_MS + 60_000, copy.key, copy.value, copy.headers)
    found = decode(copied, RULES)
    assert isinstance(found, Snapshot)
    assert (found.time_ms, found.notes) == (BASE_MS + 5_000, ())


def test_a_broken_participant_tells_no_time() -> None:
    record = replace(make_record(dated(connectedTime=at(5), state=5)), timestamp_ms=-1)
    assert identify(record, RULES) == Identity("c1", None)
    assert identify(replace(record, timestamp_ms=BASE_MS), RULES) == Identity("c1", BASE_MS)
