"""The frames that relays put around values and keys, and what is none."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consumer.core import framing
from consumer.core.envelope import LONG_BYTES
from consumer.core.framing import FRAMINGS, FRAMINGS_MAX, SNAPSHOTS_MAX, Framed, Framing, compare_key, spell_like
from consumer.core.reading import NoUpdate, Rejected, split
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Identity, Snapshot, decode, identify
from consumer.core.step import LongStep, step
from consumer.tools.republish import rekey_record
from tests import model
from tests.core.play import play
from tests.outcomes import expect_applied, expect_dead_letter
from tests.strategies import BASE_MS, NESTED_TOPICS, at, eventbridge, make_record, websocket

RULES = Rules()
BODY = {
    "id": "c1",
    "participants": [{"id": "p1", "name": "\u00e9\ud83d", "calls": [{"id": "m1", "state": "connected"}]}],
}
EVENTS = (BODY, websocket(NESTED_TOPICS[0], BODY), eventbridge(NESTED_TOPICS[0], BODY))

Wrap = Callable[[Any], bytes]


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def many_calls(count: int) -> dict[str, Any]:
    calls = [{"id": f"m{number}", "state": "connected"} for number in range(count)]
    return {"id": "c1", "participants": [{"id": "p1", "calls": calls}]}


WRAPS: dict[str, tuple[Wrap, tuple[Framing, ...]]] = {
    "byte order mark": (lambda event: b"\xef\xbb\xbf" + encode(event), ("byte_order_mark",)),
    "Confluent": (lambda event: b"\0\0\0\0\x07" + encode(event), ("confluent",)),
    "Confluent and mark": (
        lambda event: b"\0\0\0\0\x07\xef\xbb\xbf" + encode(event),
        ("confluent", "byte_order_mark"),
    ),
    "Connect": (
        lambda event: encode({"schema": {"type": "struct", "optional": False}, "payload": event}),
        ("connect",),
    ),
    "Connect of a text": (
        lambda event: encode({"schema": {"type": "string"}, "payload": json.dumps(event)}),
        ("connect",),
    ),
    "CloudEvents": (
        lambda event: encode({"specversion": "1.0", "id": "c1", "source": "/r", "type": "t", "data": event}),
        ("cloudevents",),
    ),
    "CloudEvents with a text": (
        lambda event: encode({"specversion": "1.0", "id": "x" * 999, "source": "/r", "data": json.dumps(event)}),
        ("cloudevents",),
    ),
    "CloudEvents in Base64": (
        lambda event: encode(
            {"specversion": "1.0", "id": "1", "data_base64": base64.b64encode(encode(event)).decode()}
        ),
        ("cloudevents",),
    ),
    "SNS": (
        lambda event: encode(
            {"Type": "Notification", "MessageId": "n1", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(event)}
        ),
        ("sns",),
    ),
    "SQS": (
        lambda event: encode({"MessageId": "n1", "ReceiptHandle": "r", "Body": json.dumps(event), "Attributes": {}}),
        ("sqs",),
    ),
    "SQS of a function": (
        lambda event: encode({"messageId": "n1", "receiptHandle": "r", "body": json.dumps(event), "attributes": {}}),
        ("sqs",),
    ),
    "SNS in SQS": (
        lambda event: encode(
            {"MessageId": "n", "Body": json.dumps({"Type": "Notification", "Message": json.dumps(event)})}
        ),
        ("sqs", "sns"),
    ),
    "array": (lambda event: encode([event, {"topicName": "channel.metadata"}, event, None]), ("array",)),
    "array of one": (lambda event: encode([event]), ("array",)),
    "array in Connect": (lambda event: encode({"schema": None, "payload": [event, event]}), ("connect", "array")),
    "array of SNS": (
        lambda event: encode([{"Type": "Notification", "Message": json.dumps(event)}]),
        ("array", "sns"),
    ),
    "lines": (lambda event: encode(event) + b"\n" + encode(event) + b"\r\n", ("lines",)),
    "text": (lambda event: encode(json.dumps(event)), ("text",)),
    "text with space": (lambda event: b" " + encode("\n" + json.dumps(event)) + b"\n", ("text",)),
}


@pytest.mark.parametrize("event", EVENTS, ids=["bare", "WebSocket", "EventBridge"])
@pytest.mark.parametrize("name", WRAPS)
def test_a_framed_event_has_the_outcome_of_the_plain_one(name: str, event: Any) -> None:
    wrap, framings = WRAPS[name]
    plain, record = make_record(encode(event)), make_record(wrap(event))
    outcome, expected = (
        expect_applied(step(input_record, RULES, None, lambda _: None)) for input_record in (record, plain)
    )
    assert outcome.framings == framings
    assert replace(outcome, framings=()) == expected
    assert identify(plain, RULES) == Identity("c1", BASE_MS)
    assert identify(record, RULES) == (None if {"array", "lines"} & {*framings} else Identity("c1", BASE_MS))
    assert isinstance(model.judge(record, model.Rules()), model.Snapshot)


@pytest.mark.parametrize(
    ("key", "framings"),
    [
        (b"c1", ()),
        (b'"c1"', ("key_text",)),
        (b"C1", ("key_case",)),
        (b"\0\0\0\0\x05c1", ("key_confluent",)),
        (b'\0\0\0\0\x05"C1"', ("key_confluent", "key_text", "key_case")),
        (b'{"schema":{"type":"string","optional":false},"payload":"c1"}', ("key_connect",)),
        (b"c2", None),
        (b'"c2"', None),
        (b'"c1', None),
        (b"\0c1", None),
        (b'{"payload":"c1"}', None),
        (b'{"schema":null,"payload":5}', None),
        (b'"\xff"', None),
        (b"", None),
        (None, None),
    ],
)
def test_a_key_may_be_spelled_in_several_ways(key: bytes | None, framings: tuple[Framing, ...] | None) -> None:
    record = replace(make_record(encode(BODY)), key=key)
    decoded = decode(record, RULES)
    if framings is None:
        assert isinstance(decoded, Rejected)
        assert decoded.reason == "key_mismatch"
    else:
        assert isinstance(decoded, Snapshot)
        assert (decoded.conversation_id, decoded.framings) == ("c1", framings)
    assert isinstance(model.judge(record, model.Rules()), model.Snapshot) == (framings is not None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\0\0\0\0\x07{", "bad_json"),
        (b"\0\0\0", "bad_json"),
        (b'"c1"', "wrong_type"),
        (b'"{"', "bad_json"),
        (b"[]", "wrong_type"),
        (encode([BODY, [BODY]]), "wrong_type"),
        (encode([BODY, {"id": "c1", "participants": 5}]), "wrong_type"),
        (encode([BODY, BODY | {"id": "c2"}]), "key_mismatch"),
        (encode([BODY, {"participants": [{"id": ""}], "id": "c1"}]), "nothing_usable"),
        (encode([BODY] * (SNAPSHOTS_MAX + 1)), "too_large"),
        (encode([many_calls(300), many_calls(300)]), "too_large"),
        (encode(BODY) + b"\n{", "bad_json"),
        (encode(BODY) + b"\n5", "bad_json"),
        (b"\n".join([encode(BODY)] * (SNAPSHOTS_MAX + 1)), "too_large"),
        (encode({"schema": {}, "payload": 5}), "wrong_type"),
        (encode({"schema": {}, "payload": {"id": ""}}), "no_conversation_id"),
        (encode({"payload": BODY}), "no_conversation_id"),
        (encode({"specversion": "1.0", "data_base64": "%"}), "no_conversation_id"),
        (encode({"Type": "SubscriptionConfirmation", "Message": "You have chosen"}), "no_conversation_id"),
        (encode({"Type": "Notification", "Message": "plain words"}), "bad_json"),
        (encode({"Type": "Notification", "Message": "[" * 300}), "too_deep"),
        (encode({"Type": "Notification", "Message": "[" + "1," * 70_000 + "1]"}), "too_large"),
        (encode({"schema": {}, "payload": BODY, "topicName": NESTED_TOPICS[0]}), "no_conversation_id"),
        (encode({"schema": {}, "payload": BODY, "topicName": NESTED_TOPICS[0], "eventBody": 5}), "wrong_type"),
        (encode({"schema": {}, "payload": BODY, "detail-type": NESTED_TOPICS[0], "detail": 5}), "wrong_type"),
        (encode({"schema": {}, "payload": BODY, "participants": 5}), "wrong_type"),
    ],
)
def test_what_is_in_no_frame_that_is_known_is_a_dead_letter(value: bytes, reason: str) -> None:
    record = make_record(value)
    assert expect_dead_letter(step(record, RULES, None, lambda _: None)).reason == reason
    expected = model.judge(record, model.Rules())
    assert isinstance(expected, model.Rejected)
    assert reason in expected.reasons


def test_a_tombstone_of_connect_is_one() -> None:
    assert decode(make_record({"schema": None, "payload": None}), RULES) == NoUpdate("tombstone")


def test_frames_in_frames_end() -> None:
    value = encode(BODY)
    for number in range(FRAMINGS_MAX + 2):
        decoded = decode(make_record(value), RULES)
        assert isinstance(decoded, Snapshot) == (number <= FRAMINGS_MAX)
        value = encode({"schema": {}, "payload": value.decode()})
    bomb = b"\0\0\0\0\0" * 100_000
    assert len(framing.strip(bomb).framings) == FRAMINGS_MAX


def test_a_long_record_is_unwrapped_in_stages() -> None:
    record = make_record(WRAPS["SNS in SQS"][0](BODY | {"zz": "z" * LONG_BYTES}))
    long_step, stages = LongStep(record), 1
    while (outcome := long_step.advance(RULES, None, lambda _: None)) is None:
        stages += 1
    assert outcome == step(record, RULES, None, lambda _: None)
    read = 3 * ("check", "parse", "unwrap")
    assert stages == len(("begin", *read[:-1], "body", "judgement"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_unwrapping_is_total(value: bytes) -> None:
    framed: Framed | None = framing.strip(value)
    while framed is not None:
        assert set(framed.framings) <= set(FRAMINGS)
        framed = framing.unwrap(framed)
    assert framing.compare_key(value, "c1") is None or value.strip(b'"\0').lower().endswith(b"c1")


def test_each_framing_of_a_value_is_tried() -> None:
    tried = {kind for _, kinds in WRAPS.values() for kind in kinds}
    assert tried == {kind for kind in FRAMINGS if not kind.startswith("key_")}


PRODUCED = json.loads((Path(__file__).parent.parent / "data" / "relays.json").read_text(encoding="utf-8"))
"""What other serializers wrote for one event: confluent-kafka with a schema registry, CloudEvents, Kafka Connect."""


@pytest.mark.parametrize("produced", PRODUCED, ids=lambda produced: produced["producer"])
def test_what_real_serializers_write_is_understood(produced: dict[str, Any]) -> None:
    record = Record("t", 0, 0, BASE_MS, produced["key"].encode(), produced["value"].encode())
    applied = expect_applied(step(record, RULES, None, lambda _: None))
    assert [*applied.framings] == produced["framings"]
    assert [transition.to_state for transition in applied.transitions] == ["connected"]


def call_at(seconds: float, state: str, conversation_id: str = "c1") -> dict[str, Any]:
    """An event with a time of its own."""
    call = {
        "id": "m1",
        "state": state,
        "connectedTime": at(2),
        "disconnectedTime": at(9) if state != "connected" else None,
    }
    body = {"id": conversation_id, "participants": [{"id": "p1", "calls": [call]}]}
    return eventbridge(NESTED_TOPICS[0], body, at(seconds))


@pytest.mark.parametrize("order", [1, -1])
def test_snapshots_in_one_record_give_what_they_give_in_several(order: int) -> None:
    events = [call_at(2, "connected"), call_at(3, "connected"), call_at(9, "disconnected")][::order]
    several = [make_record(event, seconds=10, offset=number) for number, event in enumerate(events)]
    one = make_record(encode(events), seconds=10)
    in_one, in_several = play([one]), play(several)
    assert [outcome.disposition for outcome in in_one.outcomes] == ["applied"]
    assert in_one.documents() == in_several.documents() == model.conversations([one], model.Rules())
    assert in_one.outcomes[0].snapshot_ms == BASE_MS + 9_000
    assert len(expect_applied(in_one.outcomes[0]).transitions) == 2
    assert play([one, *several, one]).documents() == in_one.documents()
    assert [outcome.disposition for outcome in play([*several, one]).outcomes][-1] == "unchanged"


def test_conversations_in_one_record_are_split_by_rekey() -> None:
    events = [call_at(2, "connected"), call_at(3, "connected", "c2"), {"topicName": "channel.metadata"}]
    record = make_record(b"\xef\xbb\xbf" + encode(events), seconds=10)
    assert expect_dead_letter(step(record, RULES, None, lambda _: None)).reason == "key_mismatch"
    rekeyed = [rekey_record(part, "target", RULES) for part in split(record, RULES)]
    assert [record.output.key for record in rekeyed] == [b"c1", b"c2", b"c1"]
    assert [json.loads(record.output.value or b"") for record in rekeyed] == events
    assert [dict(record.output.headers).get("snapshot-time") for record in rekeyed] == [
        str(BASE_MS + 2_000).encode(), str(BASE_MS + 3_000).encode(), None,
    ]  # fmt: skip
    plain = make_record(events[0])
    assert split(plain, RULES) == [plain]


def test_states_of_a_framed_topic_are_those_of_a_plain_one() -> None:
    plain = [make_record(encode(event), seconds=number, offset=number) for number, event in enumerate(EVENTS)]
    framed: list[Record] = [
        replace(record, value=wrap(json.loads(record.value or b"")), key=b'"C1"')
        for record, (wrap, _) in zip(plain, list(WRAPS.values())[:3], strict=True)
    ]
    assert play(framed).states == play(plain).states


@pytest.mark.parametrize(
    ("key", "spelled"),
    [
        (b"x1", b"c\xc3\xa91"),
        (b'"x1"', b'"c\xc3\xa91"'),
        (b"\0\0\0\1\x05x1", b"\0\0\0\1\x05c\xc3\xa91"),
        (b'\0\xff\0\0\x05"x1"', b'\0\xff\0\0\x05"c\xc3\xa91"'),
        (b'{"schema":{"type":"x1"},"payload":"x1"}', b'{"schema":{"type":"x1"},"payload":"c\xc3\xa91"}'),
        (b"X1", b"C\xc3\xa91"),
        (b'"X1"', '"C\u00c91"'.encode()),
        (b'"x1', b"c\xc3\xa91"),
        (b"{}", b"c\xc3\xa91"),
        (b'"\xff"', b"c\xc3\xa91"),
        (b"\0c1", b"c\xc3\xa91"),
        (b"", b"c\xc3\xa91"),
    ],
)
def test_id_is_spelled_as_another_key_is(key: bytes, spelled: bytes) -> None:
    assert spell_like(key, "c\u00e91") == spelled


@given(st.binary(max_size=20) | st.text(max_size=9).map(lambda text: json.dumps(text).encode()), st.text(max_size=9))
def test_any_id_is_spelled_like_any_key(key: bytes, conversation_id: str) -> None:
    """In a spelling that is understood as that id, whatever the id has in it: one of them is its escaped byte."""
    assert spell_like(key, "\udcff").endswith((b"\xff", b'\xff"'))
    spelled = spell_like(key, conversation_id)
    if conversation_id.isascii() and conversation_id.isalnum():
        assert compare_key(spelled, conversation_id) is not None
