"""The reference model: what the service must publish for a set of records, computed from scratch and without tricks.

It keeps no state between records. A result is a function of the whole set, so order and repetition cannot matter.
It shares only `Record` with the service; the wire types are written down here a second time.

Arrival is not modelled: no record is late, no conversation is evicted or too large, and `source` is left out.

Where the rules leave a case open, this model decides it so:

1.  An envelope whose `detail` is an object, or with a text for `detail-type`, is EventBridge's. Otherwise one with
    `topicName` or `eventBody` is the WebSocket's. Otherwise the value is a bare body. An envelope's body is only its
    `eventBody`; without one there is no conversation id. Members that only another envelope uses are not read.
2.  The topic of an EventBridge event is its detail's `topicName`; `detail-type` is used only where there is none.
3.  Values that are not well-formed JSON are rejected whatever topic they begin with: only a well-formed value has a
    topic. So are those whose topic itself has a wrong type.
4.  In a subscription reply `result` and `status` may be anything but null; id, participants and eventBody are null.
5.  A bare flat body's `state` is a string that is not empty. An empty list is an array with a non-null value.
6.  The first `snapshot-time` header that is readable and plausible counts. Without any snapshot time the newest time
    in the body counts. Only communications that are used contribute to it, and it may be in the future.
7.  A null record key is a key mismatch.
8.  A duplicated member of an object counts with its last value, but all of its values must have the right type.
9.  An empty string is null wherever a text or a time is read, within lists too.
10. Numbers follow msgspec: an integer of more than 4300 characters, or a fraction beyond the range of a double, in a
    used field is a wrong type. An integer field takes `3.0` and `3e2`, but not `3.5`.
11. A value that nests deeper than `NESTING_MAX` is too deep, and one of more than `ELEMENTS_MAX` elements and members
    too large. This is decided first, and it counts elements that are not used. Brackets and commas within strings do
    not count. Where the strings of a malformed value end is ambiguous, so such a value may be called `bad_json` too.
    A value is also too large if it lists more than `PARTICIPANTS_MAX` participants, or more communications than may
    be kept; communications without an id or state count. A list of more than `PARTICIPANTS_MAX` controlled
    participants counts as that many communications. A used text of more than `TEXT_LENGTH_MAX` characters makes it too
    large as well, but not the ids of sessions and rooms, addresses, URLs, times and topics, which are not kept. So
    does a list of skills, reasons, divisions or transfers of more than `LIST_LENGTH_MAX`, nulls included.
12. `park_cycles_max` n keeps the smallest park cycle and the n - 1 largest ones. Of the dropped cycles that show a
    state other than parked, the largest leaves its observations except the park: the remainder. A remainder makes no
    transition. It only dates when the state before the next park was entered last, if that state is the same.
13. Half of a surrogate pair, in a key or a value and whether it is used or not, is the replacement character U+FFFD.
    A value with more than `SURROGATES_MAX` escapes that look like surrogates is not repaired: there such a half makes
    the value malformed.
14. `millisecondsInFrom` runs from the transition into `from`, not from the last observation of it.
15. `details` are the details that count. `ownDetails` are those from the communication's own updates, left out where
    they are equal; `version` and `detailVersions` belong to `ownDetails`. A flat communication is matched against the
    own details of the nested ones.
16. Frames of relays are taken off before the envelope, at most `FRAMES_MAX`: a zero and four bytes, or a byte order
    mark, before the JSON; the text of an object; and an object without a value in any member of an envelope that is a
    CloudEvent with `data`, has `schema` and `payload`, or is a notification or message of SNS or SQS. What is no text
    in Base64 is no frame, and neither is a text with bytes that are no UTF-8.
17. An array, and lines of which each is in braces, hold several values, but not within one of those. All of them count
    or none; what is ignored does not count. Their snapshots are of one conversation, and list no more communications
    than one may.
18. The details of a conversation are shown by every snapshot of it, in whichever shape. Their times do not count for
    reading 6. A wrong time in them is no fault. A transfer without an id is none.
19. A time on hold, of alerting, of a transfer or of a participant's after-call work has no part in versions. A time for
    which a callback is planned may lie in the future.
20. A key is the id's own bytes, its JSON text or `{"schema", "payload"}`, either of them behind a zero and four bytes.
    ASCII letters may be in another case.
"""

import base64
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from consumer.core.record import Record


@dataclass(frozen=True)
class Rules:
    """The settings that change what a set of records means."""

    future_skew_max_s: int = 300
    park_cycles_max: int = 32
    digest_key: bytes = b""
    record_bytes_max: int = 4_194_304
    communications_max: int = 500


@dataclass(frozen=True)
class Ignored:
    """A record that is no conversation update."""

    reason: str


@dataclass(frozen=True)
class Rejected:
    """A record for the dead letters. For a value with several faults any of `reasons` is right."""

    reason: str
    reasons: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasons", self.reasons | {self.reason})


@dataclass(frozen=True)
class Observation:
    """A communication entered `state` at `time_ms`. `cycle` is a canonical time or empty."""

    state: str
    rank: int
    time_ms: int
    time_class: str
    cycle: str = ""


Version = tuple[int, str, str, str]
"""Rank of the state, park cycle, latest own time, snapshot time: all of one update."""


@dataclass(frozen=True)
class CommunicationUpdate:
    """One record's update of one communication that has a state."""

    media: str
    communication_id: str | None
    session_digest: str | None
    version: Version
    details: dict[str, Any] = field(hash=False)
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class ParticipantUpdate:
    """One record's update of one participant that has an id."""

    participant_id: str
    details: dict[str, Any] = field(hash=False)
    communications: tuple[CommunicationUpdate, ...]


@dataclass(frozen=True)
class Snapshot:
    """The content of one usable record."""

    conversation_id: str
    snapshot_ms: int
    participants: tuple[ParticipantUpdate, ...]
    details: dict[str, Any] = field(hash=False)
    listed: int = 0
    """Communications that it lists, usable or not."""
    others: "tuple[Snapshot, ...]" = ()
    """Those in the same record, none of which is newer."""


Verdict = Ignored | Rejected | Snapshot

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - arithmetic on UTC without a zone cannot overflow by an offset
YEAR_2010_MS = 1_262_304_000_000
YEAR_9999_END_MS = 253_402_300_799_999
DAY_MS = 86_400_000
OTHER_EVENT_MS = 2_000
TEXT_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?"
)


def text_ms(text: str) -> int | None:
    """The epoch milliseconds of a time as text, None if it cannot be read."""
    match = TEXT_TIME.fullmatch(text)
    if match is None:
        return None
    *whole, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        moment = datetime(*map(int, whole))  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:
        return None
    ms = (moment - EPOCH) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])
    if sign is None:
        return ms
    if int(offset_hours) > 23 or int(offset_minutes) > 59:
        return None
    offset_ms = (int(offset_hours) * 60 + int(offset_minutes)) * 60_000
    return ms - offset_ms if sign == "+" else ms + offset_ms


def wire_ms(value: str | float | None) -> int | None:
    """The epoch milliseconds of a time on the wire, None if it is absent or unreadable."""
    if value is None:
        return None
    ms = text_ms(value) if isinstance(value, str) else math.trunc(value)
    return None if ms is None or ms > YEAR_9999_END_MS else ms


def plausible(ms: int | None, latest_ms: int) -> int | None:
    """The time if it lies between 2010 and `latest_ms`, else None."""
    return ms if ms is not None and YEAR_2010_MS <= ms <= latest_ms else None


def canonical(ms: int) -> str:
    """The time as published: ISO-8601 UTC with milliseconds."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)  # noqa: UP017
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


NESTING_MAX = 256
ELEMENTS_MAX = 65_536
PARTICIPANTS_MAX = 2_000
TEXT_LENGTH_MAX = 256
LIST_LENGTH_MAX = 100
NUMBER_CHARACTERS_MAX = 4300


class Members(list[tuple[str, Any]]):
    """The members of a JSON object, in order, duplicates included."""

    def last(self) -> dict[str, Any]:
        """Each member's last value."""
        return dict(self)


class Whole(str):
    """The text of a JSON number without fraction and exponent."""

    __slots__ = ()


class Fractional(str):
    """The text of a JSON number with a fraction or an exponent."""

    __slots__ = ()


JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
SURROGATES_MAX = 16_384
LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair is a character,
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # a half alone is none,
    rb"|\\.",  # and any other escape is not looked into
    re.DOTALL,
)


NOT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def nesting(value: bytes) -> int:
    """The greatest number of arrays and objects that are open at the same time."""
    deepest = depth = 0
    for byte in JSON_STRING.sub(b"", value).translate(None, NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def elements(value: bytes) -> int:
    """The number of elements and members: they begin after a bracket or a comma. An empty array counts as one too."""
    outside = JSON_STRING.sub(b"", value)
    return sum(outside.count(mark) for mark in (b"[", b"{", b","))


def parse(value: bytes) -> Any:
    """The JSON value; bytes that are not UTF-8 become lone surrogates. Raises ValueError if it is malformed."""
    if b"\\u" in value and any(match[1] for match in LONE_SURROGATE.finditer(value)):
        if sum(match[0].lower().count(rb"\ud") for match in LONE_SURROGATE.finditer(value)) > SURROGATES_MAX:
            raise ValueError("half of a surrogate pair")
        value = LONE_SURROGATE.sub(lambda match: b"\\ufffd" if match[1] else match[0], value)

    def no_number(text: str) -> Any:
        raise ValueError(text)

    return json.loads(
        value.decode("utf-8", "surrogateescape"),
        object_pairs_hook=Members,
        parse_int=Whole,
        parse_float=Fractional,
        parse_constant=no_number,
    )


STR, KEPT, BOOL, INT, TIME = "str", "kept", "bool", "int", "time"
Shape = str | list[Any] | tuple[Any] | dict[str, Any]
"""A scalar by name, a list of one shape (a tuple: of bounded length), or the declared members of an object. Null is
right everywhere."""

WRAPUP = {"code": KEPT, "durationSeconds": INT}
AFTER_CALL_WORK = {"state": KEPT, "startTime": TIME, "endTime": TIME}
ONLY_ID = {"id": KEPT}
ROUTING = {"language": ONLY_ID, "priority": INT, "skills": (ONLY_ID,)}
ERROR = {"errorInfo": {"code": KEPT}}
ALERTING = {"startAlertingTime": TIME}
HOLD = {"held": BOOL, "startHoldTime": TIME}
ANY_MEDIUM = {
    "id": KEPT,
    "state": KEPT,
    "initialState": KEPT,
    "provider": KEPT,
    "disconnectType": KEPT,
    "connectedTime": TIME,
    "disconnectedTime": TIME,
}
ROUTED = (
    ANY_MEDIUM
    | ALERTING
    | {
        "peerId": KEPT,
        "wrapup": WRAPUP,
        "afterCallWork": AFTER_CALL_WORK,
        "afterCallWorkRequired": BOOL,
    }
)
ONLY_COBROWSE = {
    "cobrowseSessionId": STR,
    "cobrowseRole": KEPT,
    "controlling": [KEPT],
    "viewerUrl": STR,
    "providerEventTime": TIME,
}
ARRAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "calls": (
        "call",
        ROUTED | HOLD | ERROR | {"direction": KEPT, "muted": BOOL, "disconnectReasons": ({"type": KEPT, "code": INT},)},
    ),
    "callbacks": ("callback", ROUTED | HOLD | {"direction": KEPT, "callbackScheduledTime": TIME}),
    "chats": ("chat", ROUTED | HOLD),
    "cobrowsesessions": (
        "cobrowse",
        ROUTED | ONLY_COBROWSE | {"roomId": STR, "self": {"addressNormalized": STR, "addressRaw": STR}},
    ),
    "emails": ("email", ROUTED | HOLD | ERROR | {"direction": KEPT, "parkTime": TIME}),
    "internalMessages": ("internalmessage", ANY_MEDIUM | ALERTING),
    "messages": ("message", ROUTED | HOLD | ERROR | {"direction": KEPT, "type": KEPT, "parkTime": TIME}),
    "screenMonitorings": ("screenmonitoring", ANY_MEDIUM),
    "screenshares": ("screenshare", ROUTED),
    "socialExpressions": ("socialexpression", ROUTED | HOLD),
    "videos": ("video", ROUTED),
}
"""Array of the nested shape -> medium, and the members of its communications that are read."""

ROLES = ("consultParticipantId", "monitoredParticipantId", "coachedParticipantId", "bargedParticipantId")
ANY_PARTICIPANT = {"conversationRoutingData": ROUTING} | dict.fromkeys(ROLES, KEPT)
NESTED_PARTICIPANT = (
    ANY_PARTICIPANT
    | {
        "id": KEPT,
        "groupId": KEPT,
        "wrapup": WRAPUP,
        "startAcwTime": TIME,
        "endAcwTime": TIME,
        "purpose": KEPT,
        "userId": KEPT,
        "queueId": KEPT,
        "teamId": KEPT,
        "externalContactId": KEPT,
        "wrapupRequired": BOOL,
    }
    | {array: [members] for array, (_, members) in ARRAYS.items()}
)
FLAT_PARTICIPANT = (
    ONLY_COBROWSE
    | ANY_PARTICIPANT
    | HOLD
    | ERROR
    | {
        "id": KEPT,
        "purpose": KEPT,
        "user": {"id": KEPT},
        "queue": {"id": KEPT},
        "team": {"id": KEPT},
        "externalContact": {"id": KEPT},
        "group": {"id": KEPT},
        "callbackScheduledTime": TIME,
        "wrapupRequired": BOOL,
        "state": KEPT,
        "initialState": KEPT,
        "provider": KEPT,
        "disconnectType": KEPT,
        "direction": KEPT,
        "muted": BOOL,
        "peer": KEPT,
        "type": KEPT,
        "wrapup": WRAPUP,
        "connectedTime": TIME,
        "endTime": TIME,
        "parkTime": TIME,
        "startAcwTime": TIME,
        "endAcwTime": TIME,
    }
)


TRANSFER_USER = {"userId": KEPT}
CONVERSATION = {
    "externalTag": KEPT,
    "divisions": ({"division": ONLY_ID},),
    "recentTransfers": (
        {
            "id": KEPT,
            "state": KEPT,
            "transferType": KEPT,
            "dateIssued": TIME,
            "initiator": TRANSFER_USER,
            "destination": TRANSFER_USER,
        },
    ),
}
"""Members of a conversation beside its id and its participants."""


def payload(participant: dict[str, Any]) -> dict[str, Any]:
    """The three envelopes around conversations with such participants."""
    body = CONVERSATION | {"id": KEPT, "participants": [participant]}
    detail = {"topicName": STR, "eventBody": body, "timestamp": TIME}
    return body | {"topicName": STR, "eventBody": body, "detail-type": STR, "detail": detail}


ENVELOPES = {
    "EventBridge": ["detail"],
    "WebSocket": ["topicName", "eventBody"],
    "bare": ["id", "participants", *CONVERSATION],
}
"""The members of an envelope that are used."""


def find_text_fault(shape: Shape, text: str) -> list[str]:
    """What is wrong with a text that is read."""
    if has_surrogates(text):
        return ["bad_utf8"]
    return ["too_large"] if shape == KEPT and len(text) > TEXT_LENGTH_MAX else []


def has_surrogates(text: str) -> bool:
    """Whether bytes of a text were no UTF-8."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def read(shape: Shape, tree: Any, faults: list[str]) -> Any:
    """The value as the shape declares it, without undeclared and null members; faults are appended in order."""
    if tree is None:
        return None
    match shape:
        case dict() if isinstance(tree, Members):
            members = {name: read(shape[name], value, faults) for name, value in tree if name in shape}
            return {name: value for name, value in members.items() if value is not None}
        case [element] if isinstance(tree, list) and not isinstance(tree, Members):
            if isinstance(shape, tuple) and len(tree) > LIST_LENGTH_MAX:
                faults.append("too_large")
            return [read(element, value, faults) for value in tree]
        case "str" | "kept" | "time" if type(tree) is str:
            fault = find_text_fault(shape, tree)
            faults += fault
            return None if fault else tree or None
        case "bool" if isinstance(tree, bool):
            return tree
        case "int" | "time" if isinstance(tree, Whole) and len(tree) <= NUMBER_CHARACTERS_MAX:
            return int(tree)
        case "time" if isinstance(tree, Fractional) and math.isfinite(float(tree)):
            return float(tree)
        case "int" if isinstance(tree, Fractional) and float(tree).is_integer():
            return int(float(tree))
    faults.append("wrong_type")
    return None


QUEUE_FLAT = ["calls", "callbacks", "chats", "cobrowsesessions", "emails", "messages", "screenshares"]
QUEUE_NESTED = ["socialexpressions", "videos"]
USER_FLAT = QUEUE_FLAT + QUEUE_NESTED
MEDIUM = {array.lower(): medium for array, (medium, _) in ARRAYS.items()}


def topic_medium(topic: str | None) -> str | Ignored | None:
    """The medium of a flat topic, None for a nested one (or no topic at all), else why it is ignored."""
    if topic is None:
        return None
    topic = topic.lower()
    if topic == "channel.metadata":
        return Ignored("heartbeat")
    if topic.startswith("v2.system."):
        return Ignored("system")
    match topic.split("."):
        case ["v2", "users", _, "conversations"]:
            return None
        case ["v2", "users", _, "conversations", medium] if medium in USER_FLAT:
            return MEDIUM[medium]
        case ["v2", "routing", "queues", _, "conversations"]:
            return None
        case ["v2", "routing", "queues", _, "conversations", medium] if medium in QUEUE_NESTED:
            return None
        case ["v2", "routing", "queues", _, "conversations", medium] if medium in QUEUE_FLAT:
            return MEDIUM[medium]
    return Ignored("other_topic")


BEFORE, LIVE, DISCONNECTED, TERMINATED = range(4)
BEFORE_ORDER = ["none", "scheduled", "offering", "contacting", "dialing", "alerting"]
KNOWN_RANKS = (
    dict.fromkeys(BEFORE_ORDER, BEFORE)
    | dict.fromkeys(["connected", "parked", "uploading", "converting", "transmitting"], LIVE)
    | {"disconnected": DISCONNECTED, "terminated": TERMINATED}
)
CLASS_ORDER = ["provider", "state", "snapshot"]


def fold_enum(value: str) -> str:
    """The canonical spelling of an enumeration's value."""
    return value.lower().replace("_", ".")


def digest(text: str, key: bytes) -> str:
    """The digest that replaces a capability-like id in all outputs."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).hexdigest()


MALFORMED_TOO = frozenset({"bad_utf8", "too_large", "wrong_type"})
"""Faults that a decoder may report first, if it stops before the position where the JSON is malformed."""


def judge(record: Record, rules: Rules) -> Verdict:
    """Classify one record, independently of all others."""
    value = record.value
    if value is None:
        return Ignored("tombstone")
    if len(value) > rules.record_bytes_max:
        return Rejected("too_large")
    frames: tuple[str, ...] = ()
    while len(frames) < FRAMES_MAX and (match := PREFIX.match(value)):
        value, frames = value[match.end() :], (*frames, "prefix")
    return judge_value(value, frames, record, rules)


def judge_value(value: bytes, frames: tuple[str, ...], record: Record, rules: Rules) -> Verdict:
    """Classify a value of which some frames were taken off."""
    if frames and value == b"null":
        return Ignored("tombstone")
    excess = [
        reason
        for reason, is_exceeded in {
            "too_deep": nesting(value) > NESTING_MAX,
            "too_large": elements(value) > ELEMENTS_MAX,
        }.items()
        if is_exceeded
    ]
    try:
        tree = parse(value)
    except ValueError:
        lines = [line.strip() for line in value.strip().split(b"\n", SNAPSHOTS_MAX)]
        if may_split(frames) and not excess and len(lines) > 1 and all(line[:1] + line[-1:] == b"{}" for line in lines):
            return join([judge_value(line, (*frames, "part"), record, rules) for line in lines], rules)
        return Rejected(excess[0], frozenset({*excess, "bad_json"})) if excess else Rejected("bad_json", MALFORMED_TOO)
    except RecursionError:
        return Rejected("too_deep", frozenset(excess))
    if excess:
        return Rejected(excess[0], frozenset(excess))
    return judge_tree(tree, frames, record, rules)


def judge_tree(tree: Any, frames: tuple[str, ...], record: Record, rules: Rules) -> Verdict:
    """Classify well-formed JSON of which some frames were taken off."""
    content = content_of(tree) if len(frames) < FRAMES_MAX else None
    if isinstance(content, bytes):
        return judge_value(content, (*frames, "frame"), record, rules)
    if content is not None:
        return Ignored("tombstone") if content is NULL else judge_tree(content, (*frames, "frame"), record, rules)
    if tree is None and frames:
        return Ignored("tombstone")
    if isinstance(tree, list) and not isinstance(tree, Members) and tree and may_split(frames):
        return join([judge_tree(part, (*frames, "part"), record, rules) for part in tree], rules)
    if not isinstance(tree, Members):
        return Rejected("wrong_type")
    return judge_payload(tree, record, rules)


def may_split(frames: tuple[str, ...]) -> bool:
    """Whether a value of which these frames were taken off may hold several values."""
    return len(frames) < FRAMES_MAX and "part" not in frames


def join(parts: list[Verdict], rules: Rules) -> Verdict:
    """The verdict on a record that holds several values: all of them count or none."""
    if len(parts) > SNAPSHOTS_MAX:
        return Rejected("too_large")
    snapshots = [part for part in parts if isinstance(part, Snapshot)]
    rejected = [part for part in parts if isinstance(part, Rejected)]
    too_many = {"too_large"} if sum(part.listed for part in snapshots) > rules.communications_max else set()
    if rejected:
        return Rejected(rejected[0].reason, frozenset(too_many.union(*(part.reasons for part in rejected))))
    if too_many:
        return Rejected("too_large")
    if not snapshots:
        ignored = [part.reason for part in parts if isinstance(part, Ignored)]
        return Ignored(next((reason for reason in ignored if reason != "bare_flat"), "bare_flat"))
    if len({part.conversation_id for part in snapshots}) > 1:
        return Rejected("key_mismatch")
    *others, newest = sorted(snapshots, key=lambda part: part.snapshot_ms)
    return replace(newest, others=tuple(others))


SNAPSHOTS_MAX = 100
FRAMES_MAX = 4
PREFIX = re.compile(rb"\x00.{4}(?=.)|\xef\xbb\xbf", re.DOTALL)
NULL = object()


def content_of(tree: Any) -> Any:
    """What is in the frame that a value is: JSON as bytes or as it was read; None if it is no frame."""
    if type(tree) is str:
        return tree.encode() if tree.lstrip(" \t\r\n")[:1] in {"{", "["} and not has_surrogates(tree) else None
    if not isinstance(tree, Members):
        return None
    members = tree.last()
    used = [members.get(name) for name in ("topicName", "detail-type", "eventBody", "detail", "participants")]
    if any(value is not None for value in used[2:]) or any(value not in (None, "") for value in used[:2]):
        return None
    content = find_content(members)
    if type(content) is str:
        return None if has_surrogates(content) else content.encode()
    return content


def find_content(members: dict[str, Any]) -> Any:
    """What is in an object that is a frame; None if it is none."""
    if members.get("specversion") is not None:
        if members.get("data") is not None:
            return members["data"]
        encoded = members.get("data_base64")
        try:
            return base64.b64decode(encoded, validate=True) if type(encoded) is str else None
        except ValueError:
            return None
    if "schema" in members and "payload" in members:
        return NULL if members["payload"] is None else members["payload"]
    if members.get("Type") == "Notification" and type(members.get("Message")) is str:
        return members["Message"]
    for message_id, body in (("MessageId", "Body"), ("messageId", "body")):
        if members.get(message_id) is not None and type(members.get(body)) is str:
            return members[body]
    return None


def is_key_of(key: bytes | None, conversation_id: str) -> bool:
    """Whether a record's key is a spelling of a conversation id."""
    expected = conversation_id.encode()
    if key is None or key == expected:
        return key is not None
    if match := re.match(rb"\x00.{4}(?=.)", key, re.DOTALL):
        key = key[match.end() :]
    if key[:1] in (b'"', b"{"):
        try:
            spelled = json.loads(key)
        except ValueError:
            return False
        if isinstance(spelled, dict):
            spelled = spelled.get("payload") if "schema" in spelled else None
        if not isinstance(spelled, str):
            return False
        key = spelled.encode("utf-8", "replace")
    return key.lower() == expected.lower()


def judge_payload(tree: Members, record: Record, rules: Rules) -> Verdict:
    """Classify a well-formed JSON object."""
    faults: list[str] = []
    envelope = envelope_of(tree.last())
    topic = topic_of(envelope, tree.last(), faults)
    if faults:
        return Rejected(faults[0], frozenset({"bad_utf8", "wrong_type"}))
    medium = topic_medium(topic)
    if isinstance(medium, Ignored):
        return medium
    shapes = payload(NESTED_PARTICIPANT if medium is None else FLAT_PARTICIPANT)
    document = read({name: shapes[name] for name in ENVELOPES[envelope]}, tree, faults)
    if set(faults) - {"too_large"}:
        return Rejected(faults[0], frozenset(faults))
    body, body_tree, timestamp = unwrap(envelope, document, tree)
    if faults:  # what is too long is not looked into, so that there may be no time in it
        verdict = judge_body(body, medium, timestamp, record, rules)
        others = verdict.reasons if isinstance(verdict, Rejected) else frozenset[str]()
        no_time = frozenset({"no_time"} if snapshot_time(record, timestamp) is None else ())
        return Rejected("too_large", frozenset(faults) | others | no_time)
    if envelope == "bare" and is_subscription_reply(tree.last(), document):
        return Ignored("subscription_reply")
    if topic is None and is_bare_flat(body_tree):
        return Ignored("bare_flat")
    return judge_body(body, medium, timestamp, record, rules)


def envelope_of(members: dict[str, Any]) -> str:
    """Which of the envelopes an object is."""
    detail_type = members.get("detail-type")
    if isinstance(members.get("detail"), Members) or (type(detail_type) is str and detail_type):
        return "EventBridge"
    if members.get("topicName") not in (None, "") or members.get("eventBody") is not None:
        return "WebSocket"
    return "bare"


def topic_of(envelope: str, members: dict[str, Any], faults: list[str]) -> str | None:
    """The topic in an envelope; faults are appended to `faults`."""
    if envelope == "bare":
        return None
    if envelope == "WebSocket":
        return read_text(members.get("topicName"), faults)
    detail = members.get("detail")
    inner = read({"topicName": STR}, detail, faults) if isinstance(detail, Members) else {}
    return inner.get("topicName") or read_text(members.get("detail-type"), faults)


def read_text(tree: Any, faults: list[str]) -> str | None:
    """The value as a text, None if it is null or empty; faults are appended to `faults`."""
    text: str | None = read(STR, tree, faults)
    return text


def unwrap(
    envelope: str, document: dict[str, Any], tree: Members
) -> tuple[dict[str, Any], Members, str | float | None]:
    """The conversation's body as read, the same with all its members, and EventBridge's timestamp."""
    if envelope == "EventBridge":
        detail, detail_tree = document.get("detail", {}), tree.last().get("detail") or Members()
        return detail.get("eventBody", {}), detail_tree.last().get("eventBody") or Members(), detail.get("timestamp")
    if envelope == "WebSocket":
        return document.get("eventBody", {}), tree.last().get("eventBody") or Members(), None
    return document, tree, None


def judge_body(
    body: dict[str, Any], medium: str | None, timestamp: str | float | None, record: Record, rules: Rules
) -> Verdict:
    """Classify the body of a conversation update; `medium` is None for the nested shape."""
    conversation_id = body.get("id") or None
    if conversation_id is None:
        return Rejected("no_conversation_id")
    listed = [participant for participant in body.get("participants", []) if participant is not None]
    usable = [participant for participant in listed if participant.get("id")]
    normalized = [
        normalize_nested(participant) if medium is None else normalize_flat(participant, medium)
        for participant in usable
    ]
    snapshot_ms = snapshot_time(record, timestamp)
    if snapshot_ms is None:
        snapshot_ms = newest_time(
            usable if medium is None else [],
            [
                communication
                for _, communications in normalized
                for _, communication in select_used(communications, medium)
            ],
        )
    if snapshot_ms is None:
        return Rejected("no_time")
    if not is_key_of(record.key, conversation_id):
        return Rejected("key_mismatch")
    listed_communications = count_listed(body.get("participants", []), medium)
    if len(body.get("participants", [])) > PARTICIPANTS_MAX or listed_communications > rules.communications_max:
        return Rejected("too_large")
    if listed and not usable:
        return Rejected("nothing_usable")
    return Snapshot(
        conversation_id,
        snapshot_ms,
        tuple(
            ParticipantUpdate(
                participant["id"],
                participant_details(participant, snapshot_ms, rules),
                tuple(
                    read_communication(kind, communication, snapshot_ms, rules)
                    for kind, communication in select_used(communications, medium)
                ),
            )
            for participant, communications in normalized
        ),
        conversation_details(body, snapshot_ms, rules),
        listed_communications,
    )


def latest_plausible(snapshot_ms: int, rules: Rules) -> int:
    """The latest time that something shown in a snapshot can have happened at."""
    return min(snapshot_ms + rules.future_skew_max_s * 1000, YEAR_9999_END_MS)


def read_time(value: str | float | None, latest_ms: int = YEAR_9999_END_MS) -> str | None:
    """The published form of a plausible time."""
    ms = plausible(wire_ms(value), latest_ms)
    return None if ms is None else canonical(ms)


def exact(number: int | None) -> int | None:
    """The number, if every reader of JSON has it exactly."""
    return number if number is not None and abs(number) <= 2**53 else None


def without_nulls(details: dict[str, Any]) -> dict[str, Any]:
    """The details that have a value."""
    return {name: value for name, value in details.items() if value is not None}


def ids_of(references: list[dict[str, Any] | None] | None) -> list[str] | None:
    """The ids of references, sorted, each once."""
    if references is None:
        return None
    return sorted({reference["id"] for reference in references if reference is not None and "id" in reference})


def conversation_details(body: dict[str, Any], snapshot_ms: int, rules: Rules) -> dict[str, Any]:
    """A conversation's own details under their published names."""
    divisions, transfers = body.get("divisions"), body.get("recentTransfers")
    details = {
        "externalTag": body.get("externalTag"),
        "divisionIds": None
        if divisions is None
        else ids_of([membership.get("division") for membership in divisions if membership is not None]),
        "recentTransfers": None
        if transfers is None
        else unique_transfers([transfer for transfer in transfers if transfer is not None], snapshot_ms, rules),
    }
    return without_nulls(details)


def unique_transfers(transfers: list[dict[str, Any]], snapshot_ms: int, rules: Rules) -> list[dict[str, Any]]:
    """The transfers with an id, each once, in the order of their published form."""
    documents = [
        without_nulls(
            {
                "transferId": transfer["id"],
                "state": fold_enum(transfer["state"]) if "state" in transfer else None,
                "kind": fold_enum(transfer["transferType"]) if "transferType" in transfer else None,
                "time": read_time(transfer.get("dateIssued"), latest_plausible(snapshot_ms, rules)),
                "initiatorUserId": transfer.get("initiator", {}).get("userId"),
                "destinationUserId": transfer.get("destination", {}).get("userId"),
            }
        )
        for transfer in transfers
        if "id" in transfer
    ]
    by_bytes = {canonical_bytes(document): document for document in documents}
    return [by_bytes[key] for key in sorted(by_bytes)]


def select_used(
    communications: Iterable[tuple[str, dict[str, Any]]], medium: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those with a state, and in the nested shape with an id."""
    for kind, communication in communications:
        if communication.get("state") and (medium is not None or communication.get("id")):
            yield kind, communication


def count_listed(participants: list[dict[str, Any] | None], medium: str | None) -> int:
    """How many communications are listed. A list of controlled participants that is too long counts as well."""
    present = [participant for participant in participants if participant is not None]
    communications = (
        present
        if medium is not None
        else [
            communication for participant in present for name in ARRAYS for communication in participant.get(name, [])
        ]
    )
    controlled = [
        len(communication.get("controlling", [])) for communication in communications if communication is not None
    ]
    return len(communications) + sum(count for count in controlled if count > PARTICIPANTS_MAX)


def is_subscription_reply(members: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether a value without a topic answers a subscription."""
    is_update = document.get("id") or document.get("participants") is not None
    return not is_update and (members.get("result") is not None or members.get("status") is not None)


def is_bare_flat(body: Members) -> bool:
    """Whether a body without a topic is of the flat shape, so that its medium cannot be known."""
    participants = [members.last() for members in body.last().get("participants") or [] if members is not None]
    has_array = any(participant.get(array) is not None for participant in participants for array in ARRAYS)
    has_state = any(type(participant.get("state")) is str and participant["state"] for participant in participants)
    return has_state and not has_array


def snapshot_time(record: Record, detail_timestamp: str | float | None) -> int | None:
    """When the snapshot was taken, in epoch milliseconds: the first plausible of header, timestamp and record time."""
    header_times = [
        int(value)
        for name, value in record.headers
        if name == "snapshot-time" and value is not None and re.fullmatch(rb"[0-9]{1,40}", value)
    ]
    latest_ms = YEAR_9999_END_MS
    if record.timestamp_ms >= YEAR_2010_MS:
        latest_ms = min(latest_ms, record.timestamp_ms + DAY_MS)
    candidates = [*header_times, wire_ms(detail_timestamp), record.timestamp_ms]
    return next((ms for ms in candidates if plausible(ms, latest_ms) is not None), None)


TIME_NAMES = ("providerEvent", "connected", "disconnected", "park", "startHold", "startAlerting")


def newest_time(participants: list[dict[str, Any]], communications: list[dict[str, Any]]) -> int | None:
    """The newest plausible time in a body, in epoch milliseconds: for a record without a snapshot time."""
    wire = [participant.get(name) for participant in participants for name in ("startAcwTime", "endAcwTime")]
    for communication in communications:
        work = communication.get("afterCallWork", {})
        wire += [communication.get(f"{name}Time") for name in TIME_NAMES]
        wire += map(work.get, WORK_TIMES)
    times = [plausible(wire_ms(time), YEAR_9999_END_MS) for time in wire]
    return max((ms for ms in times if ms is not None), default=None)


WORK_TIMES = ("startTime", "endTime")
Normalized = tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]
"""A participant and its (medium, communication) pairs, under the member names of the nested shape."""


def normalize_nested(participant: dict[str, Any]) -> Normalized:
    """A participant of the nested shape with its communications."""
    communications = [
        (medium, communication)
        for array, (medium, _) in ARRAYS.items()
        for communication in participant.get(array, [])
        if communication is not None
    ]
    return participant, communications


def normalize_flat(participant: dict[str, Any], medium: str) -> Normalized:
    """A participant of the flat shape, its members renamed to those of the nested one."""
    same = ["state", "initialState", "provider", "disconnectType", "direction", "held", "wrapup"]
    same += ["connectedTime", "parkTime", "startHoldTime", "errorInfo"]
    same += ["callbackScheduledTime"] if medium == "callback" else []
    same += ["muted"] if medium == "call" else []
    same += ["type"] if medium == "message" else []
    same += ONLY_COBROWSE if medium == "cobrowse" else []
    communication = {name: participant[name] for name in same if name in participant}
    renamed = {"peer": "peerId", "endTime": "disconnectedTime"}
    communication |= {new: participant[old] for old, new in renamed.items() if old in participant}
    work = {"startAcwTime": "startTime", "endAcwTime": "endTime"}
    communication["afterCallWork"] = {new: participant[old] for old, new in work.items() if old in participant}

    references = {"user": "userId", "queue": "queueId", "team": "teamId", "externalContact": "externalContactId"}
    references["group"] = "groupId"
    kept = ("id", "purpose", "wrapupRequired", *ROLES, "conversationRoutingData")
    plain = {name: participant[name] for name in kept if name in participant}
    ids = {new: participant.get(old, {}).get("id") for old, new in references.items()}
    return plain | ids, [(medium, communication)]


def participant_details(participant: dict[str, Any], snapshot_ms: int, rules: Rules) -> dict[str, Any]:
    """A participant's details under their published names."""
    names = ["purpose", "userId", "queueId", "teamId", "externalContactId", "groupId", "wrapupRequired", *ROLES]
    details = {name: participant[name] for name in names if participant.get(name) is not None}
    if "purpose" in details:
        details["purpose"] = fold_enum(details["purpose"])
    routing, wrapup = participant.get("conversationRoutingData", {}), participant.get("wrapup", {})
    latest_ms = latest_plausible(snapshot_ms, rules)
    return details | without_nulls(
        {
            "routingLanguageId": routing.get("language", {}).get("id"),
            "routingPriority": exact(routing.get("priority")),
            "routingSkillIds": ids_of(routing.get("skills")),
            "wrapupCode": wrapup.get("code"),
            "wrapupDurationSeconds": exact(wrapup.get("durationSeconds")),
            "afterCallWorkStartTime": read_time(participant.get("startAcwTime"), latest_ms),
            "afterCallWorkEndTime": read_time(participant.get("endAcwTime"), latest_ms),
        }
    )


@dataclass(frozen=True)
class Times:
    """The plausible times in an update of a communication, in epoch milliseconds."""

    provider: int | None
    connected: int | None
    disconnected: int | None
    park: int | None
    hold: int | None
    alerting: int | None
    work_start: int | None
    work_end: int | None

    @property
    def latest(self) -> str:
        """The latest of those that make a version newer, empty if there is none."""
        times = [self.provider, self.connected, self.disconnected, self.park, self.work_start, self.work_end]
        known = [ms for ms in times if ms is not None]
        return canonical(max(known)) if known else ""


def read_communication(
    medium: str, communication: dict[str, Any], snapshot_ms: int, rules: Rules
) -> CommunicationUpdate:
    """The update of a communication that has a state."""
    latest_ms = latest_plausible(snapshot_ms, rules)
    work = communication.get("afterCallWork", {})
    wire = [communication.get(f"{name}Time") for name in TIME_NAMES]
    wire += [work.get("startTime"), work.get("endTime")]
    times = Times(*(plausible(wire_ms(time), latest_ms) for time in wire))
    state = fold_enum(communication["state"])
    rank = KNOWN_RANKS.get(state, LIVE if times.disconnected is None else DISCONNECTED)
    cycle = canonical(times.park) if times.park is not None and rank == LIVE else ""
    details = communication_details(communication, times, rules)
    communication_id = communication.get("id")
    return CommunicationUpdate(
        medium,
        communication_id,
        details.get("cobrowseSessionDigest") if communication_id is None else None,
        (rank, cycle, times.latest, canonical(snapshot_ms)),
        details,
        (observe_state(state, rank, cycle, times, snapshot_ms), *observe_past(state, rank, times)),
    )


def own_time(state: str, rank: int, times: Times) -> int | None:
    """The state's own time."""
    if rank >= DISCONNECTED:
        return times.disconnected
    if state == "parked":
        return times.park
    if state == "alerting":
        return times.alerting
    resumed = times.park is not None and times.connected is not None and times.park > times.connected
    return times.connected if state == "connected" and not resumed else None


def observe_state(state: str, rank: int, cycle: str, times: Times, snapshot_ms: int) -> Observation:
    """The observation of the current state: when the communication entered it."""
    own = own_time(state, rank, times)
    if times.provider is not None and (own is None or times.provider - own <= OTHER_EVENT_MS):
        return Observation(state, rank, times.provider, "provider", cycle)
    if own is not None:
        return Observation(state, rank, own, "state", cycle)
    return Observation(state, rank, snapshot_ms, "snapshot", cycle)


def observe_past(state: str, rank: int, times: Times) -> list[Observation]:
    """The observations of earlier states: of alerting at its time, of others where a communication is live or ended."""
    observations = []
    if state != "alerting" and times.alerting is not None:
        observations.append(Observation("alerting", BEFORE, times.alerting, "state"))
    if rank >= LIVE and times.connected is not None:
        observations.append(Observation("connected", LIVE, times.connected, "state"))
    if rank >= LIVE and times.park is not None:
        observations.append(Observation("parked", LIVE, times.park, "state", canonical(times.park)))
    if rank == TERMINATED and times.disconnected is not None:
        observations.append(Observation("disconnected", DISCONNECTED, times.disconnected, "state"))
    return observations


def communication_details(communication: dict[str, Any], times: Times, rules: Rules) -> dict[str, Any]:
    """A communication's details, without its state, under their published names."""

    def digest_optional(value: str | None) -> str | None:
        return digest(value, rules.digest_key) if value else None

    def fold_optional(value: str | None) -> str | None:
        return None if value is None else fold_enum(value)

    wrapup, work = communication.get("wrapup", {}), communication.get("afterCallWork", {})
    controlling = communication.get("controlling")
    endpoint = communication.get("self", {})
    address = endpoint.get("addressNormalized") or endpoint.get("addressRaw")
    reasons = communication.get("disconnectReasons")
    details = {
        "initialState": fold_optional(communication.get("initialState")),
        "disconnectType": fold_optional(communication.get("disconnectType")),
        "provider": communication.get("provider"),
        "direction": fold_optional(communication.get("direction")),
        "held": communication.get("held"),
        "muted": communication.get("muted"),
        "peerId": communication.get("peerId"),
        "messageType": fold_optional(communication.get("type")),
        "wrapupCode": wrapup.get("code"),
        "wrapupDurationSeconds": exact(wrapup.get("durationSeconds")),
        "afterCallWorkRequired": communication.get("afterCallWorkRequired"),
        "afterCallWorkState": fold_optional(work.get("state")),
        "afterCallWorkStartTime": None if times.work_start is None else canonical(times.work_start),
        "afterCallWorkEndTime": None if times.work_end is None else canonical(times.work_end),
        "cobrowseSessionDigest": digest_optional(communication.get("cobrowseSessionId")),
        "roomDigest": digest_optional(communication.get("roomId")),
        "cobrowseRole": fold_optional(communication.get("cobrowseRole")),
        "controlling": None if controlling is None else sorted({name for name in controlling if name is not None}),
        "viewable": True if communication.get("viewerUrl") else None,
        "holdStartTime": None if times.hold is None else canonical(times.hold),
        "errorCode": communication.get("errorInfo", {}).get("code"),
        "disconnectReasons": None if reasons is None else reason_codes(reasons),
        "callbackScheduledTime": read_time(communication.get("callbackScheduledTime")),
        "endpointDigest": digest_optional(address) if rules.digest_key else None,
    }
    return without_nulls(details)


def reason_codes(reasons: list[dict[str, Any] | None]) -> list[str]:
    """The codes of disconnect reasons with their protocols, sorted, each once."""
    whole = [reason for reason in reasons if reason is not None and "type" in reason]
    return sorted(
        {f"{fold_enum(reason['type'])}:{reason['code']}" for reason in whole if exact(reason.get("code")) is not None}
    )


def fold_order(observation: Observation) -> tuple[Any, ...]:
    """The key that sorts observations by lifecycle first and time second."""
    parked_first = observation.cycle != "" and observation.state != "parked"
    position = BEFORE_ORDER.index(observation.state) if observation.rank == BEFORE else 0
    return (observation.rank, observation.cycle, parked_first, observation.time_ms, position, observation.state)


def timeline(observations: Iterable[Observation], rules: Rules) -> list[Observation]:
    """The observations that are kept, in fold order, with their raw times."""
    kept: dict[tuple[int, str, str], Observation] = {}
    for observation in observations:
        key = (observation.rank, observation.state, observation.cycle)
        if key not in kept or strength(observation) < strength(kept[key]):
            kept[key] = observation
    _first, *others = sorted({observation.cycle for observation in kept.values()} - {""}) or [""]
    dropped = others[: len(others) - (rules.park_cycles_max - 1)] if len(others) >= rules.park_cycles_max else []
    resumes = [resume for resume in kept.values() if resume.cycle in dropped and resume.state != "parked"]
    newest_cycle = max((resume.cycle for resume in resumes), default="")
    remainder = [resume for resume in resumes if resume.cycle == newest_cycle]
    rest = [observation for observation in kept.values() if observation.cycle not in dropped]
    return sorted(rest + remainder, key=fold_order)


def strength(observation: Observation) -> tuple[int, int]:
    """The sort key of an observation's time: the smallest takes precedence."""
    return (CLASS_ORDER.index(observation.time_class), observation.time_ms)


def correct_times(observations: Sequence[Observation]) -> list[int]:
    """The times of observations in fold order, corrected so that none is earlier than the one before."""
    times: list[int] = []
    for index, observation in enumerate(observations):
        time_ms = observation.time_ms
        firm = [later.time_ms for later in observations[index + 1 :] if later.time_class != "snapshot"]
        if observation.time_class == "snapshot" and firm:
            time_ms = min(time_ms, firm[0])
        times.append(max([*times, time_ms]))
    return times


@dataclass(frozen=True)
class Change:
    """An entry of a communication's history: a state that differs from the one before."""

    from_state: str | None
    observation: Observation
    time_ms: int
    ms_in_from: int | None


def changes(observations: Sequence[Observation]) -> list[Change]:
    """The transitions that follow from observations in fold order."""
    history: list[Change] = []
    parks = {observation.cycle for observation in observations if observation.state == "parked"}
    dated = list(zip(observations, correct_times(observations), strict=True))
    entered_ms = 0
    for index, (observation, time_ms) in enumerate(dated):
        if is_remainder(observation, parks):
            if history and observation.state == history[-1].observation.state:
                entered_ms = time_ms
        elif not history:
            history.append(Change(None, observation, time_ms, None))
            entered_ms = time_ms
        elif observation.state != history[-1].observation.state:
            history.append(Change(history[-1].observation.state, observation, time_ms, time_ms - entered_ms))
            entered_ms = time_ms
        elif is_remainder(dated[index - 1][0], parks):
            entered_ms = time_ms
    return history


def is_remainder(observation: Observation, parks: Iterable[str]) -> bool:
    """Whether it belongs to a park cycle whose park was dropped (reading 12)."""
    return observation.cycle != "" and observation.cycle not in parks


def canonical_bytes(value: Any) -> bytes:
    """The published value as compact JSON; the greater bytes win a tie."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def registers(updates: Iterable[tuple[Any, dict[str, Any]]]) -> dict[str, tuple[Any, Any]]:
    """Name -> (version, value): the newest value of every detail."""
    entries: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for version, details in updates:
        for name, value in details.items():
            entries[name].append((version, value))

    def precedence(entry: tuple[Any, Any]) -> tuple[Any, bytes]:
        version, value = entry
        return version, canonical_bytes(value)

    return {name: max(versions, key=precedence) for name, versions in entries.items()}


@dataclass
class Leg:
    """A stored communication: a nested one has an id; a flat one a standing, and perhaps a session digest."""

    participant_id: str
    medium: str
    communication_id: str | None
    session_digest: str | None
    version: Version
    details: dict[str, tuple[Version, Any]]
    kept: list[Observation]
    sessions: frozenset[str]
    """The digests of all co-browse sessions in its updates."""
    standing: str | None = None
    joined_to: str | None = None
    updates: Sequence[CommunicationUpdate] = ()
    """All its own updates."""
    counted: list[Observation] = field(default_factory=list)
    """The observations that it counts with: its own and those of the flat ones that joined it."""
    effective_details: dict[str, Any] = field(default_factory=dict)
    """The details that it counts with, as if the updates of the flat ones that joined it were its own."""

    @property
    def effective_id(self) -> str | None:
        """The communication id in its transitions."""
        return self.communication_id or self.session_digest


def legs(snapshots: Iterable[Snapshot], rules: Rules) -> list[Leg]:
    """The communications of a conversation in their published order; flat ones are matched to nested ones."""
    updates_by_id: dict[tuple[str, str, str, str], list[CommunicationUpdate]] = defaultdict(list)
    for snapshot in snapshots:
        for participant in snapshot.participants:
            for update in participant.communications:
                identity = (
                    participant.participant_id,
                    update.media,
                    update.communication_id or "",
                    update.session_digest or "",
                )
                updates_by_id[identity].append(update)
    all_legs = [
        Leg(
            participant_id,
            medium,
            communication_id or None,
            session_digest or None,
            max(update.version for update in updates),
            registers((update.version, update.details) for update in updates),
            timeline((observation for update in updates for observation in update.observations), rules),
            frozenset(
                update.details["cobrowseSessionDigest"]
                for update in updates
                if "cobrowseSessionDigest" in update.details
            ),
            updates=updates,
        )
        for (participant_id, medium, communication_id, session_digest), updates in sorted(updates_by_id.items())
    ]
    for leg in all_legs:
        if leg.communication_id is None:
            match_flat(leg, all_legs)
    for leg in all_legs:
        sources = [leg, *(flat_leg for flat_leg in all_legs if has_joined(flat_leg, leg))]
        if leg.standing in (None, "alone"):
            leg.counted = timeline([observation for source in sources for observation in source.kept], rules)
        leg.effective_details = newest_details(update for source in sources for update in source.updates)
    return all_legs


def newest_details(updates: Iterable[CommunicationUpdate]) -> dict[str, Any]:
    """The newest value of every detail in these updates."""
    newest = registers((update.version, update.details) for update in updates)
    return {name: value for name, (_, value) in newest.items()}


def has_joined(flat_leg: Leg, nested_leg: Leg) -> bool:
    """Whether the flat communication joined that nested one."""
    if flat_leg.joined_to is None:
        return False
    joined = (flat_leg.participant_id, flat_leg.medium, flat_leg.joined_to)
    return joined == (nested_leg.participant_id, nested_leg.medium, nested_leg.communication_id)


def match_flat(leg: Leg, all_legs: Iterable[Leg]) -> None:
    """Decide which of the participant's nested communications of its medium a flat one is."""
    candidates = [
        candidate
        for candidate in all_legs
        if candidate.communication_id
        and (candidate.participant_id, candidate.medium) == (leg.participant_id, leg.medium)
    ]
    if leg.session_digest is not None:
        same = [candidate for candidate in candidates if leg.session_digest in candidate.sessions]
        candidates = same or [candidate for candidate in candidates if not candidate.sessions]
    if len(candidates) == 1:
        leg.standing, leg.joined_to = "joined", candidates[0].communication_id
    else:
        leg.standing = "ambiguous" if candidates else "alone"


def snapshots_by_conversation(records: Iterable[Record], rules: Rules) -> dict[str, list[Snapshot]]:
    """Conversation id -> the snapshots in its usable records."""
    grouped: dict[str, list[Snapshot]] = defaultdict(list)
    for record in records:
        verdict = judge(record, rules)
        if isinstance(verdict, Snapshot):
            grouped[verdict.conversation_id] += [*verdict.others, verdict]
    return grouped


def conversations(records: Iterable[Record], rules: Rules) -> dict[str, dict[str, Any]]:
    """Conversation id -> the document of the state topic, as `json.loads` gives it, without `source`."""
    grouped = snapshots_by_conversation(records, rules)
    return {
        conversation_id: conversation_document(conversation_id, snapshots, rules)
        for conversation_id, snapshots in grouped.items()
    }


def conversation_document(conversation_id: str, snapshots: Sequence[Snapshot], rules: Rules) -> dict[str, Any]:
    """The published state of one conversation."""
    all_legs = legs(snapshots, rules)
    participants = sorted({update.participant_id for snapshot in snapshots for update in snapshot.participants})
    document: dict[str, Any] = {
        "schema": 1,
        "conversationId": conversation_id,
        "snapshotTime": canonical(max(snapshot.snapshot_ms for snapshot in snapshots)),
        "live": sum(is_live(leg) for leg in all_legs),
        "communications": counts(all_legs),
        "liveSince": live_since(all_legs),
    }
    if participants:
        document["participants"] = [
            participant_document(participant_id, snapshots, all_legs) for participant_id in participants
        ]
    details = registers((canonical(snapshot.snapshot_ms), snapshot.details) for snapshot in snapshots)
    if details:
        document["details"] = {name: value for name, (_, value) in details.items()}
        older = {name: time for name, (time, _) in details.items() if time != document["snapshotTime"]}
        document |= {"detailTimes": older} if older else {}
    return document


def is_live(leg: Leg) -> bool:
    """Whether a communication counts and has not ended."""
    return bool(leg.counted) and leg.counted[-1].rank <= LIVE


def counts(all_legs: Iterable[Leg]) -> dict[str, dict[str, int]]:
    """Communications that count, by media and state."""
    by_media: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for leg in all_legs:
        if leg.counted:
            by_media[leg.medium][leg.counted[-1].state] += 1
    return by_media


def live_since(all_legs: Iterable[Leg]) -> dict[str, list[str]]:
    """When the live communications of each medium began."""
    began = [(leg.medium, canonical(changes(leg.counted)[0].time_ms)) for leg in all_legs if is_live(leg)]
    return {medium: sorted({time for other, time in began if other == medium}) for medium, _ in began}


def participant_document(participant_id: str, snapshots: Iterable[Snapshot], all_legs: Iterable[Leg]) -> dict[str, Any]:
    """The published state of one participant."""
    updates = [
        (canonical(snapshot.snapshot_ms), update.details)
        for snapshot in snapshots
        for update in snapshot.participants
        if update.participant_id == participant_id
    ]
    newest = max(time for time, _ in updates)
    details = registers(updates)
    document: dict[str, Any] = {
        "participantId": participant_id,
        "snapshotTime": newest,
        "details": {name: value for name, (_, value) in details.items()},
    }
    communications = [communication_document(leg, newest) for leg in all_legs if leg.participant_id == participant_id]
    older = {name: time for name, (time, _) in details.items() if time != newest}
    if communications:
        document["communications"] = communications
    if older:
        document["detailTimes"] = older
    return document


def communication_document(leg: Leg, newest: str) -> dict[str, Any]:
    """The published state of one communication; `newest` is the snapshot time of its participant."""
    optional: dict[str, Any] = {
        "communicationId": leg.communication_id,
        "sessionDigest": leg.session_digest,
        "standing": leg.standing,
        "joinedTo": leg.joined_to,
    }
    history = changes(leg.counted)
    if history:
        optional["state"] = history[-1].observation.state
        optional["stateTime"] = canonical(history[-1].time_ms)
        optional["timeClass"] = history[-1].observation.time_class
        optional["began"] = canonical(history[0].time_ms)
        optional["live"] = is_live(leg) or None
    own = {name: value for name, (_, value) in leg.details.items()}
    if own != leg.effective_details:
        optional["ownDetails"] = own
    older = {name: version_document(version) for name, (version, _) in leg.details.items() if version != leg.version}
    if older:
        optional["detailVersions"] = older
    if leg.sessions:
        optional["otherSessionDigests"] = sorted(leg.sessions - {leg.details["cobrowseSessionDigest"][1]}) or None
    version = version_document(leg.version)
    if version["snapshotTime"] == newest:
        del version["snapshotTime"]
    return {
        "media": leg.medium,
        "details": leg.effective_details,
        "version": version,
        "timeline": [observation_document(observation) for observation in leg.kept],
    } | {name: value for name, value in optional.items() if value is not None}


def version_document(version: Version) -> dict[str, Any]:
    """The published form of a version."""
    rank, cycle, own_time, snapshot_time_ = version
    texts = {"cycle": cycle, "ownTime": own_time, "snapshotTime": snapshot_time_}
    return {"rank": rank} | {name: text for name, text in texts.items() if text}


def observation_document(observation: Observation) -> dict[str, Any]:
    """The published form of an observation."""
    document: dict[str, Any] = {
        "state": observation.state,
        "rank": observation.rank,
        "time": canonical(observation.time_ms),
        "timeClass": observation.time_class,
    }
    return document | ({"cycle": observation.cycle} if observation.cycle else {})


STANDING_KEYS = (
    "id",
    "conversationId",
    "participantId",
    "communicationId",
    "media",
    "from",
    "to",
    "eventTime",
    "timeClass",
    "millisecondsInFrom",
)
"""The members of a transition that do not depend on arrival."""


def standing(records: Iterable[Record], rules: Rules) -> dict[str, list[dict[str, Any]]]:
    """Conversation id -> its standing transitions, communication by communication, in order of time."""
    grouped = snapshots_by_conversation(records, rules)
    return {
        conversation_id: standing_of(conversation_id, snapshots, rules)
        for conversation_id, snapshots in grouped.items()
    }


def standing_of(conversation_id: str, snapshots: Sequence[Snapshot], rules: Rules) -> list[dict[str, Any]]:
    """The standing transitions of one conversation."""
    return [
        transition_document(conversation_id, leg, change)
        for leg in legs(snapshots, rules)
        for change in changes(leg.counted)
    ]


def transition_document(conversation_id: str, leg: Leg, change: Change) -> dict[str, Any]:
    """The published form of a transition, without the members that depend on arrival."""
    into, time = change.observation, canonical(change.time_ms)
    identity = [conversation_id, leg.participant_id, leg.medium, leg.effective_id or "", change.from_state or ""]
    identity += [into.state, str(into.rank), into.cycle, time]
    return {
        "id": digest("\x1f".join(identity), b""),
        "conversationId": conversation_id,
        "participantId": leg.participant_id,
        "communicationId": leg.effective_id,
        "media": leg.medium,
        "from": change.from_state,
        "to": into.state,
        "eventTime": time,
        "timeClass": into.time_class,
        "millisecondsInFrom": change.ms_in_from,
    }


def contexts(records: Iterable[Record], rules: Rules) -> dict[str, dict[str, Any]]:
    """Id of a standing transition -> its `context`, if all these records were known when it was asserted."""
    by_id = {}
    for conversation_id, snapshots in snapshots_by_conversation(records, rules).items():
        for leg in legs(snapshots, rules):
            context = context_document(leg, snapshots)
            for change in changes(leg.counted):
                by_id[transition_document(conversation_id, leg, change)["id"]] = context
    return by_id


def context_document(leg: Leg, snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """The details of a communication and its participant that a transition carries."""
    updates = [
        (snapshot.snapshot_ms, update.details)
        for snapshot in snapshots
        for update in snapshot.participants
        if update.participant_id == leg.participant_id
    ]
    participant = registers(updates)
    context = {name: participant[name][1] for name in ("purpose", "userId", "queueId") if name in participant}
    of_leg = ("disconnectType", "errorCode", "disconnectReasons")
    return context | {name: leg.effective_details[name] for name in of_leg if name in leg.effective_details}


def net(operations: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Transition id -> the transition, if its last operation is an assertion; only `STANDING_KEYS` are kept."""
    last = {operation["id"]: operation for operation in operations}
    return {
        transition_id: {name: operation[name] for name in STANDING_KEYS}
        for transition_id, operation in last.items()
        if operation["op"] == "assert"
    }


def check_log(operations: Iterable[dict[str, Any]], *, parks_fall_out: bool = False) -> None:
    """Assert that the standing transitions of every communication are consistent after every operation of the log.

    The first starts from no state and the others from the state before. Ranks and times never go back, and
    `millisecondsInFrom` is exact. A retraction therefore removes the last standing transition, with the values of its
    assertion, and an assertion is appended.

    A park may disappear from the middle, if the flat communication that showed it does not belong there any more. For a
    record that retracts one, consistency holds after its last operation. With `parks_fall_out` that goes for all
    records, and `millisecondsInFrom` may be shorter, because the state was left and entered again.
    """
    stories: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    ids: set[str] = set()
    log = list(operations)
    sources = [tuple(sorted(operation.get("source", {}).items())) for operation in log]
    unparking = {
        source
        for source, operation in zip(sources, log, strict=True)
        if source and operation["op"] == "retract" and "parked" in (operation["from"], operation["to"])
    }
    for number, operation in enumerate(log):
        transition = {name: operation[name] for name in STANDING_KEYS}
        names = ("conversationId", "participantId", "media", "communicationId")
        story = stories[tuple(transition[name] for name in names)]
        where = f"operation {number}, {operation['op']} {transition}"
        if operation["op"] == "assert":
            assert transition["id"] not in ids, f"stands already: {where}"
            ids.add(transition["id"])
            story.append(transition)
        else:
            assert operation["op"] == "retract", f"unknown operation: {where}"
            assert transition["id"] in ids, f"does not stand: {where}"
            assert transition in story, f"stands with other values: {where}"
            ids.remove(transition["id"])
            story.remove(transition)
        is_within = number + 1 < len(log) and sources[number + 1] == sources[number]
        is_within = is_within and (parks_fall_out or sources[number] in unparking)
        if not is_within:
            check_story(story, where, parks_fall_out=parks_fall_out)


def check_story(story: Sequence[dict[str, Any]], where: str, *, parks_fall_out: bool = False) -> None:
    """Assert that the standing transitions of one communication are consistent with one another."""
    state: str | None = None
    rank, time_ms = BEFORE, 0
    for transition in story:
        entered_ms = text_ms(transition["eventTime"])
        assert entered_ms is not None, f"no time: {where}"
        assert transition["from"] == state, f"starts in {transition['from']!r}, not in {state!r}: {where}"
        assert transition["to"] != state, f"changes nothing: {where}"
        assert entered_ms >= time_ms, f"goes back in time: {where}"
        assert KNOWN_RANKS.get(transition["to"], rank) >= rank, f"goes back in the lifecycle: {where}"
        spent = None if state is None else entered_ms - time_ms
        if parks_fall_out and spent is not None:
            assert 0 <= transition["millisecondsInFrom"] <= spent, f"took at most {spent} ms: {where}"
        else:
            assert transition["millisecondsInFrom"] == spent, f"took {spent} ms: {where}"
        state, rank, time_ms = transition["to"], KNOWN_RANKS.get(transition["to"], max(rank, LIVE)), entered_ms
