"""Whose id, topic and time an envelope tells, where a part of it is missing or broken."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core import times
from consumer.core.decode import SNAPSHOT_TIME_HEADER, Ignored, Rejected, Snapshot, decode, identify
from consumer.core.rules import Rules
from tests.strategies import BASE_MS, NESTED_TOPICS, OTHER_TOPICS, at, eventbridge, make_record, websocket

RULES = Rules(key_mismatch="apply")
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
