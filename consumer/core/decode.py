"""From the bytes of a record to a snapshot. Total: no input makes `decode` raise.

What a relay passes on is one of three envelopes, or a frame that is no conversation update at all. The envelope is
read first, for the topic decides the shape of the participants in the body.
"""

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from consumer.core import surrogates, times
from consumer.core.extent import ELEMENTS_MAX, NESTING_MAX, exceeded
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.showing import ShownParticipant, shown_participant
from consumer.core.topics import NO_TOPIC, Topic, classify
from schemas.inbound import Conversation, Detail, Payload, WireTime
from schemas.state import Media

SNAPSHOT_TIME_HEADER: Final = "snapshot-time"
"""Header that carries the snapshot time of a republished record: epoch milliseconds in digits."""
DIGITS_MAX: Final = 15
"""Those of the year 9999 in epoch milliseconds: a header with more of them says nothing."""

PARTICIPANTS_MAX: Final = 2_000
"""Participants that a record may list. The state of so many, with ids as long as they are, is too large as well."""

KeyFit = Literal["fits", "missing", "different"]


class Snapshot(Struct, frozen=True, gc=False):
    """A conversation update: what the whole conversation looked like at `time_ms`."""

    conversation_id: str
    time_ms: int
    time: str
    """The same as published."""
    template: str
    key: KeyFit
    """How the record's key fits the conversation id."""
    participants: list[ShownParticipant | None]
    notes: tuple[str, ...] = ()
    """Oddities of the record as a whole, from a closed set, to be counted."""
    excess: str = ""
    """What there is too much of to be read, in which case there are no participants."""


class Ignored(Struct, frozen=True, gc=False):
    """A record that is none of this service's business."""

    reason: str


class Rejected(Struct, frozen=True, gc=False):
    """A record that should have been a conversation update and cannot be used.

    `where` says what the rule was and where it was broken: a path of property names, never a value.
    """

    reason: str
    where: str = ""
    conversation_id: str = ""
    """The one that it names, where the key names another."""


class Identity(Struct, frozen=True, gc=False):
    """Whose conversation a record tells of, and when."""

    conversation_id: str
    time_ms: int | None
    """Its snapshot time, None if none is readable."""


_NULL: Final = Raw(b"null")
_NOTHING: Final = (_NULL, Raw(b'""'))
"""The values that mean "no value"."""


class _Content(Struct, gc=False):
    """What the envelope of a value holds."""

    topic: Topic
    body: Conversation | None
    event_time: WireTime = None
    """EventBridge's."""
    is_bare: bool = False
    """Whether the value is a body without an envelope."""


class _Frame(Struct, rename="camel"):
    """The properties by which envelopes are distinguished, of any type."""

    topic_name: Raw = _NULL
    event_body: Raw = _NULL
    detail_type: Raw = msgspec.field(name="detail-type", default=_NULL)
    detail: Raw = _NULL


class _WebSocket(Struct, rename="camel"):
    """What is used of a WebSocket envelope."""

    topic_name: str | None = None
    event_body: Conversation | None = None


class _EventBridge(Struct):
    """What is used of an EventBridge envelope where `detail` names the topic."""

    detail: Detail | None = None


class _DetailFrame(Struct, rename="camel"):
    """Only what names the topic, for a body that cannot be decoded."""

    topic_name: str | None = None


class _Reply(Struct):
    """What a reply to a subscription shows instead of a topic."""

    result: Raw = _NULL
    status: Raw = _NULL


class _StateProbe(Struct):
    """Whether a participant shows a state on itself, as only the flat shape does."""

    state: Raw = _NULL


_PAYLOAD: Final = msgspec.json.Decoder(Payload)
_FRAME: Final = msgspec.json.Decoder(_Frame)
_DETAIL_FRAME: Final = msgspec.json.Decoder(_DetailFrame)
_WEBSOCKET: Final = msgspec.json.Decoder(_WebSocket)
_EVENTBRIDGE: Final = msgspec.json.Decoder(_EventBridge)
_BARE: Final = msgspec.json.Decoder(Conversation)
_TEXT: Final = msgspec.json.Decoder(str | None)
_REPLY: Final = msgspec.json.Decoder(_Reply)
_STATE_PROBE: Final = msgspec.json.Decoder(_StateProbe)


def decode(record: Record, rules: Rules) -> Snapshot | Ignored | Rejected:
    """What a record says, or why it says nothing."""
    value = record.value
    if value is None:
        return Ignored("tombstone")
    if len(value) > rules.record_bytes_max:
        return Rejected("too_large", f"{len(value)} bytes, record_bytes_max is {rules.record_bytes_max}")
    excess = exceeded(value)
    if excess == "too_deep":
        return Rejected("too_deep", f"nested deeper than {NESTING_MAX}")
    if excess == "too_many":
        return Rejected("too_large", f"more than {ELEMENTS_MAX} elements")
    value, content = _read(value)
    if isinstance(content, Rejected):
        return content
    if content.topic.ignored is not None:
        return Ignored(content.topic.ignored)
    return _snapshot(record, value, content, rules)


def identify(record: Record, rules: Rules) -> Identity | None:
    """Conversation and snapshot time of a conversation update, whatever its key is and its participants are like.

    None for any other record, and for one that cannot be read so far. Total, as `decode`, which agrees with it.
    """
    value = record.value
    if value is None or len(value) > rules.record_bytes_max or exceeded(value) is not None:
        return None
    _, content = _read(value)
    if isinstance(content, Rejected) or content.topic.ignored is not None:
        return None
    body = content.body
    if body is None or not body.id:
        return None
    time_ms = _snapshot_time(record, content.event_time)
    if time_ms is None:
        participants = _participants(body, content.topic.medium, rules, "", times.LATEST_MS)
        time_ms = None if isinstance(participants, Rejected) else _newest_time(participants)
    return Identity(body.id, time_ms)


def _snapshot(record: Record, value: bytes, content: _Content, rules: Rules) -> Snapshot | Ignored | Rejected:
    body, topic = content.body, content.topic
    time_ms = _snapshot_time(record, content.event_time)
    time = "" if time_ms is None else times.text(time_ms)
    latest_ms = times.LATEST_MS if time_ms is None else time_ms + rules.future_skew_max_s * 1_000
    participants = _participants(body, topic.medium, rules, time, latest_ms)
    excess = ""
    if isinstance(participants, Rejected):
        if participants.reason != "too_large":
            return participants
        excess, participants = participants.where, []
    notes: tuple[str, ...] = ()
    if content.is_bare and body is not None and not body.id and body.participants is None and _is_reply(value):
        return Ignored("subscription_reply")
    if topic.medium is None and not excess and _is_flat(body, participants):
        if topic.template == "none":
            return Ignored("bare_flat")
        notes = ("flat_body",)
    if body is None or not body.id:
        return Rejected("no_conversation_id", "a conversation update without an id")
    if time_ms is None:
        time_ms = _newest_time(participants)
        if time_ms is None:
            return Rejected("no_time", "no readable snapshot time")
        time = times.text(time_ms)
        notes = (*notes, "time_of_body")
    key = _key_fit(record.key, body.id)
    if key != "fits" and rules.key_mismatch == "dead_letter":
        return Rejected("key_mismatch", f"the record key is {key}: it should be the conversation id", body.id)
    return Snapshot(body.id, time_ms, time, topic.template, key, participants, notes, excess)


def _participants(
    body: Conversation | None, medium: Media | None, rules: Rules, time: str, latest_ms: int
) -> list[ShownParticipant | None] | Rejected:
    """Participants as they are shown, None for a null among them; no more than can be kept."""
    read: list[ShownParticipant | None] = []
    raw = () if body is None else body.participants or ()
    if len(raw) > PARTICIPANTS_MAX:
        return Rejected("too_large", f"{len(raw)} participants, at most {PARTICIPANTS_MAX} are read")
    key, listed, listed_max = rules.digest_key, 0, rules.communications_max
    for index, each in enumerate(raw):
        if each == _NULL:
            read.append(None)
            continue
        try:
            shown = shown_participant(bytes(each), medium, key, time, latest_ms, listed_max)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _rejected(error, f"participants[{index}]: ")
        listed += shown.listed
        if listed > listed_max:
            return Rejected("too_large", f"{listed} communications, communications_max is {listed_max}")
        read.append(shown)
    return read


def _key_fit(key: bytes | None, conversation_id: str) -> KeyFit:
    if key is None:
        return "missing"
    return "fits" if key == conversation_id.encode() else "different"


def _read(value: bytes) -> tuple[bytes, _Content | Rejected]:
    """A value and what it holds. Where msgspec refuses it, lone surrogate escapes are replaced and it is read again."""
    content = _content(value)
    if isinstance(content, Rejected):
        replaced = surrogates.replace_lone(value)
        if replaced != value:
            return replaced, _content(replaced)
    return value, content


def _content(value: bytes) -> _Content | Rejected:
    try:
        payload = _PAYLOAD.decode(value)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _content_of_envelope(value)
    except msgspec.DecodeError as error:
        return _rejected(error)
    detail = payload.detail
    if detail is not None:
        return _Content(classify(detail.topic_name or payload.detail_type), detail.event_body, detail.timestamp)
    if payload.detail_type:
        return _Content(classify(payload.detail_type), None)
    if payload.topic_name or payload.event_body is not None:
        return _Content(classify(payload.topic_name), payload.event_body)
    return _Content(NO_TOPIC, payload, is_bare=True)


def _content_of_envelope(value: bytes) -> _Content | Rejected:
    """The same of a value with a property of a wrong type: only what the envelope at hand uses can be wrong.

    The topic comes first: a body of an ignored one need not be decodable.
    """
    try:
        frame = _FRAME.decode(value)
        if (has_detail := _begins_with(frame.detail, b"{")) or (
            frame.detail_type not in _NOTHING and _begins_with(frame.detail_type, b'"')
        ):
            name = _DETAIL_FRAME.decode(frame.detail).topic_name if has_detail else None
            topic = classify(name or _TEXT.decode(frame.detail_type))
            if topic.ignored is not None:
                return _Content(topic, None)
            detail = _EVENTBRIDGE.decode(value).detail or Detail()
            return _Content(topic, detail.event_body, detail.timestamp)
        if frame.topic_name not in _NOTHING or frame.event_body != _NULL:
            topic = classify(_TEXT.decode(frame.topic_name))
            return _Content(topic, None if topic.ignored is not None else _WEBSOCKET.decode(value).event_body)
        return _Content(NO_TOPIC, _BARE.decode(value), is_bare=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _rejected(error)


def _begins_with(raw: Raw, byte: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == byte


def _rejected(error: msgspec.DecodeError | UnicodeDecodeError, where: str = "") -> Rejected:
    match error:
        case msgspec.ValidationError():
            return Rejected("wrong_type", f"{where}{error}")
        case UnicodeDecodeError():
            return Rejected("bad_utf8", f"{where}{error.reason}")
        case _:
            return Rejected("bad_json", f"{where}{error}")


def _is_reply(value: bytes) -> bool:
    reply = _REPLY.decode(value)
    return reply.result != _NULL or reply.status != _NULL


def _is_flat(body: Conversation | None, participants: list[ShownParticipant | None]) -> bool:
    """Whether participants show a state but no array of communications: a flat body, where a nested one is due."""
    if body is None:
        return False
    for each in participants:
        if each is not None and each.lists_communications:
            return False
    probes = (_STATE_PROBE.decode(each) for each in body.participants or () if each != _NULL)
    return any(probe.state not in _NOTHING for probe in probes)


def _snapshot_time(record: Record, event_time: WireTime) -> int | None:
    """The first plausible time of: our own header, EventBridge's, the record's. No clock of ours has a say.

    The first two are held against the record's, unless that is none: producers write -1, 0 and seconds.
    """
    latest_ms = times.LATEST_MS
    if record.timestamp_ms >= times.EARLIEST_MS:
        latest_ms = min(record.timestamp_ms + times.DAY_MS, latest_ms)
    for name, digits in record.headers:
        if name == SNAPSHOT_TIME_HEADER and digits is not None and digits.isdigit() and len(digits) <= DIGITS_MAX:
            stamped_ms = int(digits)
            if times.EARLIEST_MS <= stamped_ms <= latest_ms:
                return stamped_ms
    event_ms = times.parse(event_time)
    if event_ms is not None and times.EARLIEST_MS <= event_ms <= latest_ms:
        return event_ms
    return record.timestamp_ms if times.EARLIEST_MS <= record.timestamp_ms <= latest_ms else None


def _newest_time(participants: list[ShownParticipant | None]) -> int | None:
    """The newest plausible time that a body shows: its snapshot is not older than that."""
    newest = max([each.newest for each in participants if each is not None], default="")
    return times.milliseconds(newest) if newest else None
