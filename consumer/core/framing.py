"""The frames that relays put around a value or a key, before any envelope: taken off one at a time.

1. It is total: what is no frame, or a broken one, stays as it is, and is judged like any other value.
2. An envelope takes precedence: an object with one of its properties is no frame.
3. At most `FRAMINGS_MAX` frames are taken off, each in time linear in its size.
"""

import base64
import binascii
import json
from typing import Final, Literal, get_args

import msgspec
from msgspec import Raw, Struct

Framing = Literal[
    "byte_order_mark",
    "confluent",
    "connect",
    "cloudevents",
    "sns",
    "sqs",
    "text",
    "array",
    "lines",
    "key_confluent",
    "key_connect",
    "key_text",
    "key_case",
]
"""A frame of a value, or a spelling of a key."""
FRAMINGS: Final[tuple[Framing, ...]] = get_args(Framing)
FRAMINGS_MAX: Final = 4
SNAPSHOTS_MAX: Final = 100
"""Values that one record may hold."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_CONFLUENT: Final = b"\0"
_CONFLUENT_BYTES: Final = 5
"""A zero and the id of a schema in four bytes: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/"""
_SPACE: Final = b" \t\r\n"
_NULL: Final = Raw(b"null")
_ABSENT: Final = Raw(b"")
_NO_NAMES: Final = (_NULL, Raw(b'""'))


class Framed(Struct, frozen=True, gc=False):
    """A value, and the frames that were taken off it, the outermost first."""

    value: bytes
    framings: tuple[Framing, ...] = ()


class _Frame(Struct, rename="camel"):
    """The properties of the frames and of the envelopes, of any type."""

    topic_name: Raw = _NULL
    event_body: Raw = _NULL
    detail_type: Raw = msgspec.field(name="detail-type", default=_NULL)
    detail: Raw = _NULL
    participants: Raw = _NULL
    schema: Raw = _ABSENT
    payload: Raw = _ABSENT
    specversion: Raw = _NULL
    data: Raw = _NULL
    data_base64: Raw = msgspec.field(name="data_base64", default=_NULL)
    sns_type: Raw = msgspec.field(name="Type", default=_NULL)
    sns_message: Raw = msgspec.field(name="Message", default=_NULL)
    sqs_message_id: Raw = msgspec.field(name="MessageId", default=_NULL)
    sqs_body: Raw = msgspec.field(name="Body", default=_NULL)
    message_id: Raw = _NULL
    body: Raw = _NULL

    @property
    def is_envelope(self) -> bool:
        """Whether it has a property of an envelope."""
        others = (self.event_body, self.detail, self.participants)
        return (
            self.topic_name not in _NO_NAMES
            or self.detail_type not in _NO_NAMES
            or any(other != _NULL for other in others)
        )


class _KeyFrame(Struct):
    """A key as Kafka Connect's JsonConverter writes it."""

    schema: Raw
    payload: str


_FRAME: Final = msgspec.json.Decoder(_Frame)
_KEY_FRAME: Final = msgspec.json.Decoder(_KeyFrame)
_TEXT: Final = msgspec.json.Decoder(str)
_ARRAY: Final = msgspec.json.Decoder(list[Raw])


def strip(value: bytes) -> Framed:
    """Take off the frames that are bytes before the JSON: a byte order mark, and the id of a schema."""
    framings: list[Framing] = []
    while len(framings) < FRAMINGS_MAX:
        if value.startswith(_CONFLUENT) and len(value) > _CONFLUENT_BYTES:
            value = value[_CONFLUENT_BYTES:]
            framings.append("confluent")
        elif value.startswith(_BYTE_ORDER_MARK):
            value = value[len(_BYTE_ORDER_MARK) :]
            framings.append("byte_order_mark")
        else:
            break
    return Framed(value, tuple(framings))


def unwrap(framed: Framed) -> Framed | None:
    """Take off the outermost frame of a JSON value; None if it has none, or enough were taken off.

    Of lone surrogate escapes, which msgspec refuses, there must be none.
    """
    if len(framed.framings) >= FRAMINGS_MAX:
        return None
    found = _try_unwrap(framed.value)
    if found is None:
        return None
    framing, value = found
    return Framed(value, (*framed.framings, framing))


def split(framed: Framed) -> list[Framed] | None:
    """The values in an array, or in lines of objects; None if it is neither, or has no value, or is a part itself.

    Of lines no more than `SNAPSHOTS_MAX` are parted, so that the last of more parts has the others.
    """
    if len(framed.framings) >= FRAMINGS_MAX or not {"array", "lines"}.isdisjoint(framed.framings):
        return None
    value = framed.value.strip(_SPACE)
    framing: Framing = "array"
    if value.startswith(b"["):
        parts = _split_array(value)
    else:
        framing = "lines"
        parts = [line.strip(_SPACE) for line in value.split(b"\n", SNAPSHOTS_MAX)]
        if len(parts) == 1 or not all(line[:1] == b"{" and line[-1:] == b"}" for line in parts):
            return None
    return [Framed(part, (*framed.framings, framing)) for part in parts] or None


def _split_array(value: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in _ARRAY.decode(value)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def parse_key(key: bytes) -> Framed | None:
    """The conversation id that a key spells, and how, but for its case; None if the key is a broken frame."""
    framings: list[Framing] = []
    if key.startswith(_CONFLUENT) and len(key) > _CONFLUENT_BYTES:
        key = key[_CONFLUENT_BYTES:]
        framings.append("key_confluent")
    try:
        if key.startswith(b'"'):
            key = _TEXT.decode(key).encode()
            framings.append("key_text")
        elif key.startswith(b"{"):
            key = _KEY_FRAME.decode(key).payload.encode()
            framings.append("key_connect")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Framed(key, tuple(framings))


def compare_key(key: bytes | None, conversation_id: str) -> tuple[Framing, ...] | None:
    """How a record's key spells a conversation id, empty for the id itself; None if it is another key."""
    expected = conversation_id.encode()
    if key == expected:
        return ()
    found = None if key is None else parse_key(key)
    if found is None or found.value.lower() != expected.lower():
        return None
    return found.framings if found.value == expected else (*found.framings, "key_case")


def spell_like(key: bytes, conversation_id: str) -> bytes:
    """The key that a relay writes for a conversation id, if it wrote this key for another one."""
    prefix = key[:_CONFLUENT_BYTES] if key.startswith(_CONFLUENT) and len(key) > _CONFLUENT_BYTES else b""
    content = key[len(prefix) :]
    plain = _encode_key(conversation_id)
    try:
        if content.startswith(b'"'):
            text = _TEXT.decode(content)
            return prefix + _quote(conversation_id.upper() if text.isupper() else conversation_id)
        if content.startswith(b"{"):
            before, _, after = content.rpartition(_quote(_KEY_FRAME.decode(content).payload))
            return prefix + before + _quote(conversation_id) + after
    except (msgspec.DecodeError, UnicodeDecodeError):
        return plain
    return prefix + (plain.upper() if content.isupper() else plain)


def _quote(text: str) -> bytes:
    return _encode_key(json.dumps(text, ensure_ascii=False))


def _encode_key(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _try_unwrap(value: bytes) -> tuple[Framing, bytes] | None:
    try:
        return _unwrap(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _unwrap(value: bytes) -> tuple[Framing, bytes] | None:
    begin = value.lstrip(_SPACE)[:1]
    if begin == b'"':
        text = _TEXT.decode(value).encode()
        return ("text", text) if text.lstrip(_SPACE)[:1] in {b"{", b"["} else None
    if begin != b"{":
        return None
    frame = _FRAME.decode(value)
    return None if frame.is_envelope else _open(frame)


def _open(frame: _Frame) -> tuple[Framing, bytes] | None:
    if frame.specversion != _NULL:
        if frame.data != _NULL:
            return "cloudevents", _content(frame.data)
        try:
            return "cloudevents", base64.b64decode(_TEXT.decode(frame.data_base64), validate=True)
        except (binascii.Error, msgspec.ValidationError):
            return None
    if _ABSENT not in (frame.schema, frame.payload):
        return "connect", _content(frame.payload)
    if frame.sns_type == Raw(b'"Notification"') and _is_text(frame.sns_message):
        return "sns", _content(frame.sns_message)
    for message_id, body in ((frame.sqs_message_id, frame.sqs_body), (frame.message_id, frame.body)):
        if message_id != _NULL and _is_text(body):
            return "sqs", _content(body)
    return None


def _content(raw: Raw) -> bytes:
    """JSON as it stands, or what a text of it holds."""
    return _TEXT.decode(raw).encode() if _is_text(raw) else bytes(raw)


def _is_text(raw: Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b'"'
