"""Which envelope a value is in. What becomes of broken ones is in tests/behaviour/test_envelopes.py."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core import envelope, surrogates
from consumer.core.escapes import JsonText
from consumer.core.extent import find_excess
from tests import strategies
from tests.strategies import FLAT_TOPICS, NESTED_TOPICS, OTHER_TOPICS, at, eventbridge, websocket

BODY = {"id": "c1", "participants": []}


@pytest.mark.parametrize(
    ("document", "template", "event_time"),
    [
        (websocket(NESTED_TOPICS[0], BODY), "v2.users.{id}.conversations", None),
        (websocket(FLAT_TOPICS[0], BODY), "v2.users.{id}.conversations.calls", None),
        (eventbridge(NESTED_TOPICS[0], BODY, at(3)), "v2.users.{id}.conversations", at(3)),
        ({"eventBody": BODY}, "none", None),
        (BODY, "none", None),
    ],
    ids=["WebSocket", "WebSocket, flat", "EventBridge", "WebSocket without topic", "bare"],
)
@pytest.mark.parametrize("surprise", [{}, {"version": 5}, {"metadata": None, "new": [{}]}])
def test_parse(document: dict[str, Any], template: str, event_time: str | None, surprise: dict[str, Any]) -> None:
    parsed = envelope.parse(json.dumps(document | surprise).encode())
    assert (parsed.topic.template, parsed.topic.ignored, parsed.event_time) == (template, None, event_time)
    assert parsed.body is not None
    assert parsed.body.id == "c1"


@pytest.mark.parametrize(
    ("document", "ignored"),
    [
        (websocket("channel.metadata", {"message": "WebSocket Heartbeat"}), "heartbeat"),
        (websocket("v2.system.socket_closing", {}), "system"),
        (websocket(OTHER_TOPICS[-1], 5), "other_topic"),
        ({"result": "200"}, "subscription_reply"),
        ({"status": 400, "id": None}, "subscription_reply"),
    ],
)
def test_other_frames_are_ignored(document: dict[str, Any], ignored: str) -> None:
    assert envelope.parse(json.dumps(document).encode()).topic.ignored == ignored


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b'{"id":', msgspec.DecodeError),
        (b"[]", msgspec.ValidationError),
        (b'{"id":5}', msgspec.ValidationError),
        (b'{"id":"\xff"}', UnicodeDecodeError),
    ],
)
def test_broken_values_raise(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        envelope.parse(value)


members = st.dictionaries(
    st.sampled_from(["id", "participants", "topicName", "eventBody", "detail-type", "detail", "timestamp", "result"]),
    st.recursive(
        st.sampled_from([None, 5, "", "x", "\ud83d", *NESTED_TOPICS, *OTHER_TOPICS, {}, [], BODY, {"id": 5}]),
        lambda inner: st.fixed_dictionaries({}, optional={"topicName": inner, "eventBody": inner, "id": inner}),
        max_leaves=4,
    ),
).map(lambda document: json.dumps(document).encode())


@given(
    st.one_of(members, strategies.values, strategies.damaged(members), strategies.damaged(strategies.values)).filter(
        lambda value: find_excess(JsonText(value)) is None
    )
)
def test_long_values_are_read_as_short_ones(value: bytes) -> None:
    """In fewer readings: the result is the same, and so is what is said of a broken one."""

    def read(parse: Callable[[bytes], envelope.Envelope]) -> object:
        try:
            parsed = parse(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return type(error), str(error)
        if parsed.topic.ignored is not None or parsed.body is None:
            return parsed.topic
        return parsed.topic, parsed.event_time, parsed.body.id, parsed.body.participants

    assert read(envelope._parse_long) == read(envelope._parse)


def test_a_long_value_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one with half a character and a wrong type that is not used: each reading takes milliseconds."""
    readings: list[str] = []
    for name in [name for name, decoder in vars(envelope).items() if isinstance(decoder, msgspec.json.Decoder)]:
        monkeypatch.setattr(envelope, name, _CountingDecoder(getattr(envelope, name), readings))
    filling = {"zz": "x" * envelope.LONG_BYTES, "half": "\ud83d"}
    for document, wrong in (
        (websocket(NESTED_TOPICS[0], BODY), {"detail": 5}),
        (eventbridge(NESTED_TOPICS[0], BODY, at(3)), {"eventBody": 5}),
        (BODY, {"detail-type": 5}),
    ):
        readings.clear()
        value = surrogates.replace_lone(JsonText(json.dumps(document | filling | wrong).encode()))
        assert envelope.parse(value).body is not None
        assert readings == ["long", "long"]


class _CountingDecoder:
    """A decoder that records when it reads a long value."""

    def __init__(self, decoder: msgspec.json.Decoder[Any], readings: list[str]) -> None:
        self._decoder = decoder
        self._readings = readings

    def decode(self, value: bytes) -> Any:
        if len(memoryview(value)) >= envelope.LONG_BYTES:
            self._readings.append("long")
        return self._decoder.decode(value)
