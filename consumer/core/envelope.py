"""Find out which envelope a value is in, and read its topic, its body and the time of its snapshot.

Three envelopes carry a conversation update: WebSocket, EventBridge, and none (the value is the body itself). Usually
one decoder reads them all in one pass. Where a property has a type that it does not expect, only what the envelope at
hand uses can be wrong, so the value is read again by a decoder for that envelope. A long value is read by that decoder
at once: each reading takes milliseconds.
"""

from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Raw, Struct

from consumer.core import surrogates, timestamps
from consumer.core.escapes import JsonText
from consumer.core.framing import Framing
from consumer.core.notification_topics import NO_TOPIC, Topic, classify
from consumer.core.record import Record
from schemas.inbound import Conversation, Detail, Payload, WireTime

SNAPSHOT_TIME_HEADER: Final = "snapshot-time"
"""Header that carries the snapshot time of a republished record: epoch milliseconds in digits."""
DIGITS_MAX: Final = 15
"""Digits of the year 9999 in epoch milliseconds: a longer header is ignored."""

LONG_BYTES: Final = 524_288
"""Size from which a value is read as if it were wrong, so that the worst case is the only one, and a record is
processed in stages."""

NULL: Final = Raw(b"null")
NO_VALUES: Final = (NULL, Raw(b'""'))
"""The JSON values that stand for no value."""


class Envelope(Struct, gc=False):
    """What the envelope of a value holds."""

    topic: Topic
    body: Conversation | None
    event_time: WireTime = None
    """EventBridge's."""
    is_bare: bool = False
    """Whether the value has the properties of no envelope, so that it is read as the body itself."""
    framings: tuple[Framing, ...] = ()
    """What was around the value."""


class _Frame(Struct, rename="camel"):
    """The properties by which envelopes are distinguished, of any type."""

    topic_name: Raw = NULL
    event_body: Raw = NULL
    detail_type: Raw = msgspec.field(name="detail-type", default=NULL)
    detail: Raw = NULL


class _WebSocket(Struct, rename="camel"):
    """The properties used of a WebSocket envelope."""

    topic_name: str | None = None
    event_body: Conversation | None = None


class _EventBridge(Struct):
    """The properties used of an EventBridge envelope whose `detail` names the topic."""

    detail: Detail | None = None


class _DetailFrame(Struct, rename="camel"):
    """The topic of a `detail` whose body may be impossible to decode."""

    topic_name: str | None = None


class _Reply(Struct):
    """The properties of the reply to a subscription, which has no topic."""

    result: Raw = NULL
    status: Raw = NULL


_SUBSCRIPTION_REPLY: Final = Topic("none", ignored="subscription_reply")
_PAYLOAD: Final = msgspec.json.Decoder(Payload)
_FRAME: Final = msgspec.json.Decoder(_Frame)
_DETAIL_FRAME: Final = msgspec.json.Decoder(_DetailFrame)
_WEBSOCKET: Final = msgspec.json.Decoder(_WebSocket)
_EVENTBRIDGE: Final = msgspec.json.Decoder(_EventBridge)
_BARE: Final = msgspec.json.Decoder(Conversation)
_TEXT: Final = msgspec.json.Decoder(str | None)
_REPLY: Final = msgspec.json.Decoder(_Reply)


def parse(value: bytes) -> Envelope:
    """Parse the value of a record. Raises msgspec.DecodeError and UnicodeDecodeError.

    Lone surrogate escapes, which msgspec refuses, are replaced. Of a long value they are to be replaced before.
    """
    if len(value) >= LONG_BYTES:
        return _parse_long(value)
    try:
        return _parse(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        replaced = surrogates.replace_lone(JsonText(value))
        if replaced == value:
            raise
    return _parse(replaced)


def _parse(value: bytes) -> Envelope:
    try:
        payload = _PAYLOAD.decode(value)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _parse_used(value)
    detail = payload.detail
    if detail is not None:
        return Envelope(classify(detail.topic_name or payload.detail_type), detail.event_body, detail.timestamp)
    if payload.detail_type:
        return Envelope(classify(payload.detail_type), None)
    if payload.topic_name or payload.event_body is not None:
        return Envelope(classify(payload.topic_name), payload.event_body)
    return _parse_bare(value, payload)


def _parse_long(value: bytes) -> Envelope:
    """Parse with as few readings as possible, whether or not everything has the type that is expected."""
    try:
        return _parse_used(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with suppress(msgspec.ValidationError, UnicodeDecodeError):
            _PAYLOAD.decode(value)  # what it says of broken JSON takes precedence, as for any other value
        raise


def _parse_used(value: bytes) -> Envelope:
    """Parse only what the envelope at hand uses. In the body of an ignored topic nothing can be wrong."""
    frame = _FRAME.decode(value)
    has_detail = _begins_with(frame.detail, b"{")
    if has_detail or (frame.detail_type not in NO_VALUES and _begins_with(frame.detail_type, b'"')):
        return _parse_eventbridge(value, frame, has_detail=has_detail)
    if frame.topic_name not in NO_VALUES or frame.event_body != NULL:
        topic = classify(_TEXT.decode(frame.topic_name))
        return Envelope(topic, None if topic.ignored is not None else _WEBSOCKET.decode(value).event_body)
    return _parse_bare(value, _BARE.decode(value))


def _parse_eventbridge(value: bytes, frame: _Frame, *, has_detail: bool) -> Envelope:
    try:
        detail = _EVENTBRIDGE.decode(value).detail or Detail()
    except (msgspec.DecodeError, UnicodeDecodeError):
        name = _DETAIL_FRAME.decode(frame.detail).topic_name if has_detail else None
        topic = classify(name or _TEXT.decode(frame.detail_type))
        if topic.ignored is None:
            raise
        return Envelope(topic, None)
    topic = classify(detail.topic_name or _TEXT.decode(frame.detail_type))
    return Envelope(topic, detail.event_body, detail.timestamp)


def _begins_with(raw: Raw, byte: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == byte


def _parse_bare(value: bytes, body: Conversation) -> Envelope:
    if not body.id and body.participants is None:
        reply = _REPLY.decode(value)
        if reply.result != NULL or reply.status != NULL:
            return Envelope(_SUBSCRIPTION_REPLY, None, is_bare=True)
    return Envelope(NO_TOPIC, body, is_bare=True)


def find_snapshot_time(record: Record, event_time: WireTime) -> int | None:
    """The first plausible snapshot time, in epoch milliseconds: of our own header, EventBridge's event, the record.

    The first two may lie at most a day after the record's timestamp, unless that is no time: producers write -1, 0 and
    seconds. No clock of ours is read.
    """
    latest_ms = timestamps.LATEST_MS
    if record.timestamp_ms >= timestamps.EARLIEST_MS:
        latest_ms = min(record.timestamp_ms + timestamps.DAY_MS, latest_ms)
    for name, digits in record.headers:
        if name == SNAPSHOT_TIME_HEADER and digits is not None and digits.isdigit() and len(digits) <= DIGITS_MAX:
            stamped_ms = int(digits)
            if timestamps.EARLIEST_MS <= stamped_ms <= latest_ms:
                return stamped_ms
    event_ms = timestamps.parse(event_time)
    if event_ms is not None and timestamps.EARLIEST_MS <= event_ms <= latest_ms:
        return event_ms
    return record.timestamp_ms if timestamps.EARLIEST_MS <= record.timestamp_ms <= latest_ms else None
