"""Id, topic and time of a record whose envelope lacks a part, or has a broken one."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core import timestamps
from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.reading import NoUpdate, Rejected
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Identity, Snapshot, decode, identify
from consumer.tools.republish import rekey_record
from tests import model
from tests.core.play import play
from tests.outcomes import expect_applied
from tests.strategies import BASE_MS, FLAT_TOPICS, NESTED_TOPICS, OTHER_TOPICS, at, eventbridge, make_record, websocket

RULES = Rules()
BODY: dict[str, Any] = {"id": "c1", "participants": []}
ENVELOPE = {"id": "e1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}


def snap(record: Record) -> Snapshot:
    """The snapshot of a record that has one."""
    snapshot = decode(record, RULES)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def reject(record: Record) -> Rejected:
    """The rejection of a record that is rejected."""
    rejected = decode(record, RULES)
    assert isinstance(rejected, Rejected)
    return rejected


@pytest.mark.parametrize(
    "document",
    [
        websocket(NESTED_TOPICS[0], None) | ENVELOPE,
        eventbridge(NESTED_TOPICS[0], {}) | ENVELOPE | {"detail": None},
        eventbridge(NESTED_TOPICS[0], None) | ENVELOPE,
    ],
    ids=["WebSocket", "EventBridge without detail", "EventBridge without body"],
)
def test_an_envelope_without_a_body_is_not_a_body_itself(document: dict[str, Any]) -> None:
    record = make_record(document, key="e1")
    assert identify(record, RULES) is None
    assert reject(record).reason == "no_conversation_id"


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
def test_other_topics_are_ignored_even_if_not_decodable(document: dict[str, Any]) -> None:
    assert decode(make_record(document), RULES) == NoUpdate("heartbeat")


@pytest.mark.parametrize(
    "document",
    [
        websocket(NESTED_TOPICS[0], BROKEN),
        eventbridge(NESTED_TOPICS[0], BROKEN),
        eventbridge(OTHER_TOPICS[0], BROKEN) | {"detail": {"topicName": NESTED_TOPICS[0], "eventBody": BROKEN}},
        BROKEN,
    ],
    ids=["WebSocket", "EventBridge", "EventBridge with two topics", "no topic"],
)
def test_an_update_that_is_not_decodable_is_rejected(document: dict[str, Any]) -> None:
    assert reject(make_record(document)).reason == "wrong_type"


def test_the_topic_within_an_event_decides() -> None:
    body = {"id": "c1", "participants": [{"id": "p1", "state": "connected"}]}
    nested, flat = NESTED_TOPICS[0], "v2.users.u1.conversations.calls"
    for outer, inner, template in ((flat, nested, nested), (nested, flat, flat), (OTHER_TOPICS[0], nested, nested)):
        document = eventbridge(outer, body)
        document["detail"]["topicName"] = inner
        assert snap(make_record(document)).template == template.replace("u1", "{id}")


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
def test_a_flat_body_without_a_medium_is_ignored(participants: list[Any], is_flat: bool) -> None:  # noqa: FBT001 - a column
    decoded = decode(make_record({"id": "c1", "participants": participants}), RULES)
    assert isinstance(decoded, Snapshot) != is_flat
    assert (decoded == NoUpdate("bare_flat")) == is_flat


FLAT_BODY: dict[str, Any] = {"id": "c1", "participants": [{"id": "p1", "state": "connected", "purpose": "agent"}]}


@pytest.mark.parametrize("topic", NESTED_TOPICS)
def test_a_flat_body_under_a_nested_topic_is_an_anomaly(topic: str) -> None:
    (outcome,) = play([make_record(websocket(topic, FLAT_BODY))]).outcomes
    assert (outcome.anomalies, expect_applied(outcome).transitions) == (("flat_body",), ())


def test_no_other_body_counts_as_a_misplaced_flat_one() -> None:
    nested = {"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}
    for topic, body in ((NESTED_TOPICS[0], nested), (FLAT_TOPICS[0], FLAT_BODY), (NESTED_TOPICS[0], {"id": "c1"})):
        assert play([make_record(websocket(topic, body))]).outcomes[0].anomalies == ()


def test_an_empty_event_is_no_conversation() -> None:
    assert reject(make_record({"detail": {}})).reason == "no_conversation_id"


@pytest.mark.parametrize("sign", ["result", "status"])
@pytest.mark.parametrize(
    ("members", "is_reply"), [({}, True), ({"id": "c1"}, False), ({"participants": [], "id": ""}, False)]
)
def test_a_subscription_reply_has_neither_id_nor_participants(
    sign: str,
    members: dict[str, Any],
    is_reply: bool,  # noqa: FBT001 - a column
) -> None:
    decoded = decode(make_record({sign: "ok", **members}), RULES)
    assert (decoded == NoUpdate("subscription_reply")) == is_reply


@pytest.mark.parametrize(
    ("timestamp", "seconds"), [(at(7), 7), (None, 60), ("2009-12-31T23:59:59.999Z", 60), (at(60 + 86_400.001), 60)]
)
def test_the_time_of_an_event_is_used_if_plausible(timestamp: str | None, seconds: int) -> None:
    record = make_record(eventbridge(NESTED_TOPICS[0], {"id": "c1", "participants": []}, timestamp), seconds=60)
    assert snap(record).time_ms == BASE_MS + seconds * 1_000


@pytest.mark.parametrize(
    ("stamp", "time_ms"),
    [
        (str(BASE_MS - 5_000), BASE_MS - 5_000),
        (str(BASE_MS + timestamps.DAY_MS), BASE_MS + timestamps.DAY_MS),
        (str(BASE_MS + timestamps.DAY_MS + 1), BASE_MS),
        (str(timestamps.EARLIEST_MS), timestamps.EARLIEST_MS),
        (str(timestamps.EARLIEST_MS - 1), BASE_MS),
        (f"{BASE_MS - 5_000:015}", BASE_MS - 5_000),
        (f"{BASE_MS - 5_000:016}", BASE_MS),
        ("-1", BASE_MS),
        ("", BASE_MS),
        (None, BASE_MS),
    ],
)
def test_the_time_in_our_own_header_is_used_if_plausible(stamp: str | None, time_ms: int) -> None:
    another = ("another", str(BASE_MS + 1).encode())
    headers = (another, (SNAPSHOT_TIME_HEADER, None if stamp is None else stamp.encode()), another)
    assert snap(make_record({"id": "c1"}, headers=headers)).time_ms == time_ms


@pytest.mark.parametrize(
    ("timestamp_ms", "is_used"),
    [
        (timestamps.EARLIEST_MS - 1, False),
        (timestamps.EARLIEST_MS, True),
        (timestamps.LATEST_MS, True),
        (timestamps.LATEST_MS + 1, False),
        (-1, False),
    ],
)
def test_a_timestamp_is_used_if_it_can_be_published(timestamp_ms: int, is_used: bool) -> None:  # noqa: FBT001 - a column
    record = replace(make_record({"id": "c1", "participants": []}), timestamp_ms=timestamp_ms)
    assert decode(record, RULES) == (
        Snapshot("c1", timestamp_ms, timestamps.to_text(timestamp_ms), "none", [])
        if is_used
        else Rejected("no_time", "no readable snapshot time")
    )
    later = str(timestamp_ms + 1).encode()
    identity = identify(replace(record, headers=((SNAPSHOT_TIME_HEADER, later),)), RULES)
    assert identity is not None
    assert (identity.time_ms == timestamp_ms + 1) == (
        timestamps.EARLIEST_MS <= timestamp_ms + 1 <= timestamps.LATEST_MS
    )


NO_TIMESTAMPS = (-1, 0, BASE_MS // 1_000, timestamps.EARLIEST_MS - 1)


@pytest.mark.parametrize("timestamp_ms", NO_TIMESTAMPS)
def test_an_unusable_timestamp_bounds_no_other_time(timestamp_ms: int) -> None:
    """If the record has no timestamp of its own, EventBridge's time and our own header need not be near it."""
    event = replace(make_record(eventbridge(NESTED_TOPICS[0], BODY, at(7))), timestamp_ms=timestamp_ms)
    headers = ((SNAPSHOT_TIME_HEADER, str(BASE_MS + 9_000).encode()),)
    for record, seconds in ((event, 7), (replace(event, headers=headers), 9)):
        snapshot, identity = snap(record), identify(record, RULES)
        assert (snapshot.time_ms, snapshot.anomalies) == (BASE_MS + seconds * 1_000, ())
        assert identity is not None
        assert identity.time_ms == snapshot.time_ms


def make_body(array: str = "cobrowsesessions", **members: Any) -> dict[str, Any]:
    """A conversation with a participant that shows times, and one that shows none."""
    leg = {"id": "m1", "state": "connected", **members}
    return {"id": "c1", "participants": [None, {"id": "p1", array: [leg]}, {"id": "p2", "calls": [{"id": "m2"}]}]}


BODY_TIMES = [
    (make_body(connectedTime=at(5)), 5),
    (make_body(connectedTime=at(5), providerEventTime=at(9)), 9),
    (make_body(state="disconnected", connectedTime=at(5), disconnectedTime=at(8)), 8),
    (make_body("messages", connectedTime=at(5), parkTime=at(6), resumeTime=at(3_600)), 6),
    (make_body(connectedTime=at(5), afterCallWork={"startTime": at(11), "endTime": at(12)}), 12),
    (make_body(connectedTime=at(5), providerEventTime="soon", disconnectedTime="9999-12-31T23:59:59.999-23:59"), 5),
    (make_body(connectedTime="2009-12-31T23:59:59.999Z", providerEventTime=at(4)), 4),
    (make_body(), None),
    (make_body(connectedTime=0, providerEventTime="soon"), None),
    (make_body("calls", parkTime=at(5), providerEventTime=at(6)), None),
    (make_body(id=None, connectedTime=at(5)), None),
    (make_body(state=None, connectedTime=at(5)), None),
    ({"id": "c1", "participants": []}, None),
    ({"id": "c1"}, None),
]


@pytest.mark.parametrize("timestamp_ms", NO_TIMESTAMPS)
@pytest.mark.parametrize(("body", "seconds"), BODY_TIMES)
def test_the_time_of_a_body_is_used_as_a_last_resort(
    timestamp_ms: int, body: dict[str, Any], seconds: int | None
) -> None:
    """It is the newest plausible time among those that are used, and counted as an anomaly."""
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
        assert outcome.anomalies.count("time_of_body") == 1
        assert isinstance(verdict, model.Snapshot)
        assert verdict.snapshot_ms == outcome.snapshot_ms
    assert "time_of_body" not in play([make_record(websocket(NESTED_TOPICS[0], body))]).outcomes[0].anomalies


def test_the_time_of_a_flat_body_is_used_as_a_last_resort() -> None:
    participant = {
        "id": "p1",
        "state": "disconnected",
        "endTime": at(5),
        "startAcwTime": at(7),
        "providerEventTime": at(9),
    }
    document = websocket("v2.users.u1.conversations.calls", {"id": "c1", "participants": [participant]})
    record = replace(make_record(document), timestamp_ms=-1)
    identity = identify(record, RULES)
    assert identity is not None
    assert snap(record).time_ms == identity.time_ms == BASE_MS + 7_000


def test_a_rekeyed_copy_keeps_the_time_of_its_body() -> None:
    """The header carries it, because the copy has a timestamp of its own."""
    record = replace(make_record(make_body(connectedTime=at(5))), timestamp_ms=-1)
    copy = rekey_record(record, "copy", RULES).output
    copied = Record("copy", 0, 0, BASE_MS + 60_000, copy.key, copy.value, tuple(copy.headers))
    snapshot = snap(copied)
    assert (snapshot.time_ms, snapshot.anomalies) == (BASE_MS + 5_000, ())


def test_a_body_with_a_broken_participant_has_no_time() -> None:
    record = replace(make_record(make_body(connectedTime=at(5), state=5)), timestamp_ms=-1)
    assert identify(record, RULES) == Identity("c1", None)
    assert identify(replace(record, timestamp_ms=BASE_MS), RULES) == Identity("c1", BASE_MS)
