"""The reference model: what the service must say about a set of records, computed from scratch, slowly and plainly.

It keeps no state between records: whatever it says, it says of the whole set, so order and repetition cannot matter.
It shares nothing with the service but `Record`; the wire types are written down here a second time.

Arrival is not modelled: nothing is ever late, evicted or too large as a conversation, and `source` is left out.

Where the rules are silent, this model reads them so:

1.  An envelope whose `detail` is an object, or with a text for `detail-type`, is EventBridge's, else one with
    `topicName` or `eventBody` is the WebSocket's, else the value is a bare body. An envelope's body is only its
    `eventBody`; without one there is no conversation id. What another envelope would use is not looked at.
2.  The topic of an EventBridge event is its detail's `topicName`; `detail-type` is used only where there is none.
3.  Values that are not well-formed JSON are rejected whatever topic they begin with: only a well-formed value has a
    topic. So are those whose topic itself has a wrong type.
4.  In a subscription reply `result` and `status` may be anything but null; id, participants and eventBody are null.
5.  A bare flat body's `state` is a string that is not empty. An empty list is an array with a non-null value.
6.  The first `snapshot-time` header that is readable and plausible counts. The times that a body shows are those of
    communications that are used, as they are read of any record; that they are later than anything is no fault there.
7.  A null record key is a key mismatch.
8.  A duplicated member of an object counts with its last value, but each of its values must have the right type.
9.  An empty string is null wherever a text or a time is read, within lists too.
10. Numbers follow msgspec: an integer of more than 4300 characters, or a fraction beyond the range of a double, in a
    used field is a wrong type. An integer field takes `3.0` and `3e2`, but not `3.5`.
11. A value that nests deeper than `NESTING_MAX` is too deep, and one of more than `ELEMENTS_MAX` elements and members
    too large, whether they are used or not and before anything else is said of it. What stands within strings does
    not count; where the strings of a malformed value end is anybody's guess, so that one may be called `bad_json` as
    well. So is one too large that lists more than `PARTICIPANTS_MAX` participants, or more communications than may
    be kept, those without an id or state among them. A list of more than `PARTICIPANTS_MAX` controlled participants
    counts as so many communications.
12. The park cycles kept by `park_cycles_max` n are the smallest one and the n - 1 largest ones. Of the largest one
    among the others that shows another state all but its park is remembered. It makes no transition; it says when the
    state before the next park, if it is the same, was entered last.
13. Half of a surrogate pair, in a key or a value and whether it is used or not, is the replacement character U+FFFD.
    Only a value with more than `SURROGATES_MAX` escapes that look like surrogates is not looked into: such a half
    makes it malformed.
14. `millisecondsInFrom` runs from the transition into `from`, not from the last observation of it.
15. `details` is what counts, `ownDetails` what the communication showed itself, left out where that is the same;
    `version` and `detailVersions` are of the latter. To whom a flat one belongs is told by what the nested ones
    showed themselves.
"""

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from consumer.core.record import Record


@dataclass(frozen=True)
class Rules:
    """The settings that change what a set of records means."""

    future_skew_max_s: int = 300
    park_cycles_max: int = 32
    key_mismatch: Literal["dead_letter", "apply"] = "dead_letter"
    digest_key: bytes = b""
    record_bytes_max: int = 4_194_304
    communications_max: int = 500


@dataclass(frozen=True)
class Ignored:
    """A record that is no conversation update."""

    reason: str


@dataclass(frozen=True)
class Rejected:
    """A record for the dead letters. A value with several faults may be called after any of `reasons`."""

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
"""Rank of the state shown, cycle shown, latest own time shown, snapshot time."""


@dataclass(frozen=True)
class CommunicationSight:
    """What one record says about one communication that shows a state."""

    media: str
    communication_id: str | None
    session_digest: str | None
    version: Version
    details: dict[str, Any] = field(hash=False)
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class ParticipantSight:
    """What one record says about one participant that has an id."""

    participant_id: str
    details: dict[str, Any] = field(hash=False)
    communications: tuple[CommunicationSight, ...]


@dataclass(frozen=True)
class Sight:
    """What one usable record says."""

    conversation_id: str
    snapshot_ms: int
    participants: tuple[ParticipantSight, ...]


Verdict = Ignored | Rejected | Sight

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
    """The epoch milliseconds of a time as it stands on the wire, None if absent or unreadable."""
    if value is None:
        return None
    ms = text_ms(value) if isinstance(value, str) else math.trunc(value)
    return None if ms is None or ms > YEAR_9999_END_MS else ms


def plausible(ms: int | None, latest_ms: int) -> int | None:
    """The time, if it is one and lies between 2010 and `latest_ms`."""
    return ms if ms is not None and YEAR_2010_MS <= ms <= latest_ms else None


def canonical(ms: int) -> str:
    """The time as published: ISO-8601 UTC with milliseconds."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)  # noqa: UP017
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


NESTING_MAX = 256
ELEMENTS_MAX = 65_536
PARTICIPANTS_MAX = 2_000
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
    """How many arrays and objects are open at most at the same time."""
    deepest = depth = 0
    for byte in JSON_STRING.sub(b"", value).translate(None, NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def elements(value: bytes) -> int:
    """How many elements and members there are, give or take an empty array: each begins after a bracket or a comma."""
    outside = JSON_STRING.sub(b"", value)
    return sum(outside.count(mark) for mark in (b"[", b"{", b","))


def parse(value: bytes) -> Any:
    """The JSON value; bytes that are no UTF-8 survive as lone surrogates. ValueError if it is malformed."""
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


STR, BOOL, INT, TIME = "str", "bool", "int", "time"
Shape = str | list[Any] | dict[str, Any]
"""A scalar by name, a list of one shape, or the declared members of an object. Null is right everywhere."""

WRAPUP = {"code": STR, "durationSeconds": INT}
AFTER_CALL_WORK = {"state": STR, "startTime": TIME, "endTime": TIME}
ANY_MEDIUM = {
    "id": STR,
    "state": STR,
    "initialState": STR,
    "provider": STR,
    "disconnectType": STR,
    "connectedTime": TIME,
    "disconnectedTime": TIME,
}
ROUTED = ANY_MEDIUM | {
    "peerId": STR,
    "wrapup": WRAPUP,
    "afterCallWork": AFTER_CALL_WORK,
    "afterCallWorkRequired": BOOL,
}
ONLY_COBROWSE = {
    "cobrowseSessionId": STR,
    "cobrowseRole": STR,
    "controlling": [STR],
    "viewerUrl": STR,
    "providerEventTime": TIME,
}
ARRAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "calls": ("call", ROUTED | {"direction": STR, "held": BOOL, "muted": BOOL}),
    "callbacks": ("callback", ROUTED | {"direction": STR, "held": BOOL}),
    "chats": ("chat", ROUTED | {"held": BOOL}),
    "cobrowsesessions": ("cobrowse", ROUTED | ONLY_COBROWSE | {"roomId": STR}),
    "emails": ("email", ROUTED | {"direction": STR, "held": BOOL, "parkTime": TIME}),
    "internalMessages": ("internalmessage", ANY_MEDIUM),
    "messages": ("message", ROUTED | {"direction": STR, "held": BOOL, "type": STR, "parkTime": TIME}),
    "screenMonitorings": ("screenmonitoring", ANY_MEDIUM),
    "screenshares": ("screenshare", ROUTED),
    "socialExpressions": ("socialexpression", ROUTED | {"held": BOOL}),
    "videos": ("video", ROUTED),
}
"""Array of the nested shape -> medium, and the members of its communications that are read."""

NESTED_PARTICIPANT = {
    "id": STR,
    "purpose": STR,
    "userId": STR,
    "queueId": STR,
    "teamId": STR,
    "externalContactId": STR,
    "wrapupRequired": BOOL,
} | {array: [members] for array, (_, members) in ARRAYS.items()}
FLAT_PARTICIPANT = ONLY_COBROWSE | {
    "id": STR,
    "purpose": STR,
    "user": {"id": STR},
    "queue": {"id": STR},
    "team": {"id": STR},
    "externalContact": {"id": STR},
    "wrapupRequired": BOOL,
    "state": STR,
    "initialState": STR,
    "provider": STR,
    "disconnectType": STR,
    "direction": STR,
    "held": BOOL,
    "muted": BOOL,
    "peer": STR,
    "type": STR,
    "wrapup": WRAPUP,
    "connectedTime": TIME,
    "endTime": TIME,
    "parkTime": TIME,
    "startAcwTime": TIME,
    "endAcwTime": TIME,
}


def payload(participant: dict[str, Any]) -> dict[str, Any]:
    """The three envelopes around conversations with such participants."""
    body = {"id": STR, "participants": [participant]}
    detail = {"topicName": STR, "eventBody": body, "timestamp": TIME}
    return body | {"topicName": STR, "eventBody": body, "detail-type": STR, "detail": detail}


ENVELOPES = {"EventBridge": ["detail"], "WebSocket": ["topicName", "eventBody"], "bare": ["id", "participants"]}
"""The members of an envelope that are used."""


def read(shape: Shape, tree: Any, faults: list[str]) -> Any:
    """The value as the shape declares it, undeclared members and null members left out; faults are added in order."""
    if tree is None:
        return None
    match shape:
        case dict() if isinstance(tree, Members):
            found = {name: read(shape[name], value, faults) for name, value in tree if name in shape}
            return {name: value for name, value in found.items() if value is not None}
        case [element] if isinstance(tree, list) and not isinstance(tree, Members):
            return [read(element, value, faults) for value in tree]
        case "str" | "time" if type(tree) is str:
            if not tree.isascii() and any("\ud800" <= character <= "\udfff" for character in tree):
                faults.append("bad_utf8")
                return None
            return tree or None
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


def folded_enum(value: str) -> str:
    """The value of an enumeration in its one spelling."""
    return value.lower().replace("_", ".")


def digest(text: str, key: bytes) -> str:
    """What stands for a capability-like id in all outputs."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).hexdigest()


MALFORMED_TOO = frozenset({"bad_utf8", "wrong_type"})
"""What a decoder that stops at the first fault may find before it comes to the place that is no JSON."""


def judge(record: Record, rules: Rules) -> Verdict:
    """What one record says, whatever came before it."""
    value = record.value
    if value is None:
        return Ignored("tombstone")
    if len(value) > rules.record_bytes_max:
        return Rejected("too_large")
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
        return Rejected(excess[0], frozenset({*excess, "bad_json"})) if excess else Rejected("bad_json", MALFORMED_TOO)
    except RecursionError:
        return Rejected("too_deep", frozenset(excess))
    if excess:
        return Rejected(excess[0], frozenset(excess))
    if not isinstance(tree, Members):
        return Rejected("wrong_type")
    return judge_payload(tree, record, rules)


def judge_payload(tree: Members, record: Record, rules: Rules) -> Verdict:
    """What a well-formed JSON object says."""
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
    if faults:
        return Rejected(faults[0], frozenset(faults))
    body, body_tree, timestamp = unwrapped(envelope, document, tree)
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
    """The topic that an envelope tells; faults are added."""
    if envelope == "bare":
        return None
    if envelope == "WebSocket":
        return read_text(members.get("topicName"), faults)
    detail = members.get("detail")
    inner = read({"topicName": STR}, detail, faults) if isinstance(detail, Members) else {}
    return inner.get("topicName") or read_text(members.get("detail-type"), faults)


def read_text(tree: Any, faults: list[str]) -> str | None:
    """The value as a text, if it says anything; faults are added."""
    text: str | None = read(STR, tree, faults)
    return text


def unwrapped(
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
    """What the body of a conversation update says; `medium` is that of the flat shape."""
    conversation_id = body.get("id") or None
    if conversation_id is None:
        return Rejected("no_conversation_id")
    listed = [each for each in body.get("participants", []) if each is not None]
    usable = [each for each in listed if each.get("id")]
    shown = [nested(each) if medium is None else flat(each, medium) for each in usable]
    snapshot_ms = snapshot_time(record, timestamp)
    if snapshot_ms is None:
        snapshot_ms = newest_shown([each for _, found in shown for _, each in used(found, medium)])
    if snapshot_ms is None:
        return Rejected("no_time")
    if rules.key_mismatch == "dead_letter" and record.key != conversation_id.encode():
        return Rejected("key_mismatch")
    if too_many(body.get("participants", []), medium, rules):
        return Rejected("too_large")
    if listed and not usable:
        return Rejected("nothing_usable")
    return Sight(
        conversation_id,
        snapshot_ms,
        tuple(
            ParticipantSight(
                participant["id"],
                participant_details(participant),
                tuple(
                    communication_sight(kind, communication, snapshot_ms, rules)
                    for kind, communication in used(communications, medium)
                ),
            )
            for participant, communications in shown
        ),
    )


def used(
    communications: Iterable[tuple[str, dict[str, Any]]], medium: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those that show a state, and in the nested shape an id."""
    for kind, communication in communications:
        if communication.get("state") and (medium is not None or communication.get("id")):
            yield kind, communication


def too_many(participants: list[dict[str, Any] | None], medium: str | None, rules: Rules) -> bool:
    """Whether a record lists more participants, communications or participants controlled than are gone through."""
    shown = [each for each in participants if each is not None]
    communications = (
        shown if medium is not None else [each for who in shown for name in ARRAYS for each in who.get(name, [])]
    )
    controlled = [len(each.get("controlling", [])) for each in communications if each is not None]
    listed = len(communications) + sum(count for count in controlled if count > PARTICIPANTS_MAX)
    return len(participants) > PARTICIPANTS_MAX or listed > rules.communications_max


def is_subscription_reply(members: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether a value without a topic answers a subscription."""
    return not document and (members.get("result") is not None or members.get("status") is not None)


def is_bare_flat(body: Members) -> bool:
    """Whether a body without a topic is of the flat shape, so that its medium cannot be known."""
    participants = [each.last() for each in body.last().get("participants") or [] if each is not None]
    arrays_shown = any(each.get(array) is not None for each in participants for array in ARRAYS)
    state_shown = any(type(each.get("state")) is str and each["state"] for each in participants)
    return state_shown and not arrays_shown


def snapshot_time(record: Record, detail_timestamp: str | float | None) -> int | None:
    """When the snapshot was taken, in epoch milliseconds: the first plausible of what the record offers."""
    offered = [
        int(value)
        for name, value in record.headers
        if name == "snapshot-time" and value is not None and re.fullmatch(rb"[0-9]{1,40}", value)
    ]
    latest_ms = YEAR_9999_END_MS
    if record.timestamp_ms >= YEAR_2010_MS:
        latest_ms = min(latest_ms, record.timestamp_ms + DAY_MS)
    candidates = [*offered, wire_ms(detail_timestamp), record.timestamp_ms]
    return next((ms for ms in candidates if plausible(ms, latest_ms) is not None), None)


def newest_shown(communications: Iterable[dict[str, Any]]) -> int | None:
    """The newest plausible time that communications show, where nothing tells when the snapshot was taken."""
    found = []
    for each in communications:
        work = each.get("afterCallWork", {})
        wire = [each.get(f"{name}Time") for name in ("providerEvent", "connected", "disconnected", "park")]
        found += [plausible(wire_ms(time), YEAR_9999_END_MS) for time in [*wire, *map(work.get, WORK_TIMES)]]
    return max((ms for ms in found if ms is not None), default=None)


WORK_TIMES = ("startTime", "endTime")
Shown = tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]
"""A participant, and its communications with their media; both under the names of the nested shape."""


def nested(participant: dict[str, Any]) -> Shown:
    """A participant of the nested shape."""
    found = [
        (medium, communication)
        for array, (medium, _) in ARRAYS.items()
        for communication in participant.get(array, [])
        if communication is not None
    ]
    return participant, found


def flat(participant: dict[str, Any], medium: str) -> Shown:
    """A participant of the flat shape, brought to the names of the nested one."""
    same = ["state", "initialState", "provider", "disconnectType", "direction", "held", "wrapup"]
    same += ["connectedTime", "parkTime"]
    same += ["muted"] if medium == "call" else []
    same += ["type"] if medium == "message" else []
    same += ONLY_COBROWSE if medium == "cobrowse" else []
    communication = {name: participant[name] for name in same if name in participant}
    renamed = {"peer": "peerId", "endTime": "disconnectedTime"}
    communication |= {new: participant[old] for old, new in renamed.items() if old in participant}
    work = {"startAcwTime": "startTime", "endAcwTime": "endTime"}
    communication["afterCallWork"] = {new: participant[old] for old, new in work.items() if old in participant}

    references = {"user": "userId", "queue": "queueId", "team": "teamId", "externalContact": "externalContactId"}
    plain = {name: participant[name] for name in ("id", "purpose", "wrapupRequired") if name in participant}
    ids = {new: participant.get(old, {}).get("id") for old, new in references.items()}
    return plain | ids, [(medium, communication)]


def participant_details(participant: dict[str, Any]) -> dict[str, Any]:
    """What a record says of a participant, under the published names."""
    names = ["purpose", "userId", "queueId", "teamId", "externalContactId", "wrapupRequired"]
    details = {name: participant[name] for name in names if participant.get(name) is not None}
    if "purpose" in details:
        details["purpose"] = folded_enum(details["purpose"])
    return details


@dataclass(frozen=True)
class Times:
    """The plausible times that a communication shows, in epoch milliseconds."""

    provider: int | None
    connected: int | None
    disconnected: int | None
    park: int | None
    work_start: int | None
    work_end: int | None

    @property
    def latest(self) -> str:
        """The latest of them, empty if there is none."""
        shown = [self.provider, self.connected, self.disconnected, self.park, self.work_start, self.work_end]
        known = [ms for ms in shown if ms is not None]
        return canonical(max(known)) if known else ""


def communication_sight(medium: str, shown: dict[str, Any], snapshot_ms: int, rules: Rules) -> CommunicationSight:
    """What a record says of a communication that shows a state."""
    latest_ms = min(snapshot_ms + rules.future_skew_max_s * 1000, YEAR_9999_END_MS)
    work = shown.get("afterCallWork", {})
    wire = [shown.get(f"{name}Time") for name in ("providerEvent", "connected", "disconnected", "park")]
    wire += [work.get("startTime"), work.get("endTime")]
    times = Times(*(plausible(wire_ms(each), latest_ms) for each in wire))
    state = folded_enum(shown["state"])
    rank = KNOWN_RANKS.get(state, LIVE if times.disconnected is None else DISCONNECTED)
    cycle = canonical(times.park) if times.park is not None and rank == LIVE else ""
    details = communication_details(shown, times, rules)
    communication_id = shown.get("id")
    return CommunicationSight(
        medium,
        communication_id,
        details.get("cobrowseSessionDigest") if communication_id is None else None,
        (rank, cycle, times.latest, canonical(snapshot_ms)),
        details,
        (entered(state, rank, cycle, times, snapshot_ms), *implied(rank, times)),
    )


def own_time(state: str, rank: int, times: Times) -> int | None:
    """The state's own time."""
    if rank >= DISCONNECTED:
        return times.disconnected
    if state == "parked":
        return times.park
    resumed = times.park is not None and times.connected is not None and times.park > times.connected
    return times.connected if state == "connected" and not resumed else None


def entered(state: str, rank: int, cycle: str, times: Times, snapshot_ms: int) -> Observation:
    """When the communication entered the state that it shows."""
    own = own_time(state, rank, times)
    if times.provider is not None and (own is None or times.provider - own <= OTHER_EVENT_MS):
        return Observation(state, rank, times.provider, "provider", cycle)
    if own is not None:
        return Observation(state, rank, own, "state", cycle)
    return Observation(state, rank, snapshot_ms, "snapshot", cycle)


def implied(rank: int, times: Times) -> list[Observation]:
    """What the times of a live or ended communication tell of states that it does not show."""
    found = []
    if rank >= LIVE and times.connected is not None:
        found.append(Observation("connected", LIVE, times.connected, "state"))
    if rank >= LIVE and times.park is not None:
        found.append(Observation("parked", LIVE, times.park, "state", canonical(times.park)))
    if rank == TERMINATED and times.disconnected is not None:
        found.append(Observation("disconnected", DISCONNECTED, times.disconnected, "state"))
    return found


def communication_details(shown: dict[str, Any], times: Times, rules: Rules) -> dict[str, Any]:
    """What a record says of a communication besides its state, under the published names."""

    def digested(value: str | None) -> str | None:
        return digest(value, rules.digest_key) if value else None

    def folded(value: str | None) -> str | None:
        return None if value is None else folded_enum(value)

    wrapup, work = shown.get("wrapup", {}), shown.get("afterCallWork", {})
    seconds = wrapup.get("durationSeconds")
    controlling = shown.get("controlling")
    details = {
        "initialState": folded(shown.get("initialState")),
        "disconnectType": folded(shown.get("disconnectType")),
        "provider": shown.get("provider"),
        "direction": folded(shown.get("direction")),
        "held": shown.get("held"),
        "muted": shown.get("muted"),
        "peerId": shown.get("peerId"),
        "messageType": folded(shown.get("type")),
        "wrapupCode": wrapup.get("code"),
        "wrapupDurationSeconds": seconds if seconds is not None and abs(seconds) <= 2**53 else None,
        "afterCallWorkRequired": shown.get("afterCallWorkRequired"),
        "afterCallWorkState": folded(work.get("state")),
        "afterCallWorkStartTime": None if times.work_start is None else canonical(times.work_start),
        "afterCallWorkEndTime": None if times.work_end is None else canonical(times.work_end),
        "cobrowseSessionDigest": digested(shown.get("cobrowseSessionId")),
        "roomDigest": digested(shown.get("roomId")),
        "cobrowseRole": folded(shown.get("cobrowseRole")),
        "controlling": None if controlling is None else sorted({each for each in controlling if each is not None}),
        "viewable": True if shown.get("viewerUrl") else None,
    }
    return {name: value for name, value in details.items() if value is not None}


def fold_order(observation: Observation) -> tuple[Any, ...]:
    """The key that sorts observations by lifecycle first and time second."""
    parked_first = observation.cycle != "" and observation.state != "parked"
    position = BEFORE_ORDER.index(observation.state) if observation.rank == BEFORE else 0
    return (observation.rank, observation.cycle, parked_first, observation.time_ms, position, observation.state)


def timeline(observations: Iterable[Observation], rules: Rules) -> list[Observation]:
    """The observations that are kept, in fold order, with their raw times."""
    kept: dict[tuple[int, str, str], Observation] = {}
    for each in observations:
        place = (each.rank, each.state, each.cycle)
        if place not in kept or strength(each) < strength(kept[place]):
            kept[place] = each
    _first, *others = sorted({each.cycle for each in kept.values()} - {""}) or [""]
    dropped = others[: len(others) - (rules.park_cycles_max - 1)] if len(others) >= rules.park_cycles_max else []
    resumes = [each for each in kept.values() if each.cycle in dropped and each.state != "parked"]
    remembered = [each for each in resumes if each.cycle == max(resume.cycle for resume in resumes)]
    return sorted([each for each in kept.values() if each.cycle not in dropped] + remembered, key=fold_order)


def strength(observation: Observation) -> tuple[int, int]:
    """How good an observation's time is: the least wins."""
    return (CLASS_ORDER.index(observation.time_class), observation.time_ms)


def put_right(observations: Sequence[Observation]) -> list[int]:
    """The times of observations in fold order, put right."""
    times: list[int] = []
    for at, each in enumerate(observations):
        firm = [later.time_ms for later in observations[at + 1 :] if later.time_class != "snapshot"]
        time_ms = min(each.time_ms, firm[0]) if each.time_class == "snapshot" and firm else each.time_ms
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
    found: list[Change] = []
    parks = {each.cycle for each in observations if each.state == "parked"}
    dated = list(zip(observations, put_right(observations), strict=True))
    entered_ms = 0
    for at, (each, time_ms) in enumerate(dated):
        if is_remainder(each, parks):
            if found and each.state == found[-1].observation.state:
                entered_ms = time_ms
        elif not found:
            found.append(Change(None, each, time_ms, None))
            entered_ms = time_ms
        elif each.state != found[-1].observation.state:
            found.append(Change(found[-1].observation.state, each, time_ms, time_ms - entered_ms))
            entered_ms = time_ms
        elif is_remainder(dated[at - 1][0], parks):
            entered_ms = time_ms
    return found


def is_remainder(observation: Observation, parks: Iterable[str]) -> bool:
    """Whether it is what is remembered of a park cycle that is not kept."""
    return observation.cycle != "" and observation.cycle not in parks


def canonical_bytes(value: Any) -> bytes:
    """The published value as compact JSON; the greater bytes win a tie."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def registers(shown: Iterable[tuple[Any, dict[str, Any]]]) -> dict[str, tuple[Any, Any]]:
    """Name -> (version, value) of the newest showing of each detail."""
    found: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for version, details in shown:
        for name, value in details.items():
            found[name].append((version, value))
    return {name: max(all_, key=lambda each: (each[0], canonical_bytes(each[1]))) for name, all_ in found.items()}


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
    """The digests of all co-browse sessions that it has ever shown."""
    standing: str | None = None
    joined_to: str | None = None
    sights: Sequence[CommunicationSight] = ()
    """All that was said of it."""
    counted: list[Observation] = field(default_factory=list)
    """The observations that it counts with: its own and those of the flat ones that joined it."""
    known: dict[str, Any] = field(default_factory=dict)
    """The details that it counts with, as if all that was said of the flat ones that joined it were said of it."""

    @property
    def shown_id(self) -> str | None:
        """The communication id of its transitions."""
        return self.communication_id or self.session_digest


def legs(sights: Iterable[Sight], rules: Rules) -> list[Leg]:
    """The communications of a conversation, each flat one in its place, sorted as they are published."""
    shown: dict[tuple[str, str, str, str], list[CommunicationSight]] = defaultdict(list)
    for sight in sights:
        for participant in sight.participants:
            for each in participant.communications:
                identity = (
                    participant.participant_id,
                    each.media,
                    each.communication_id or "",
                    each.session_digest or "",
                )
                shown[identity].append(each)
    found = [
        Leg(
            participant_id,
            medium,
            communication_id or None,
            session_digest or None,
            max(each.version for each in all_),
            registers((each.version, each.details) for each in all_),
            timeline((observation for each in all_ for observation in each.observations), rules),
            frozenset(
                each.details["cobrowseSessionDigest"] for each in all_ if "cobrowseSessionDigest" in each.details
            ),
            sights=all_,
        )
        for (participant_id, medium, communication_id, session_digest), all_ in sorted(shown.items())
    ]
    for leg in found:
        if leg.communication_id is None:
            place(leg, found)
    for leg in found:
        joined = [each for each in found if each.joined_to is not None and belongs(each, leg)]
        if leg.standing in (None, "alone"):
            leg.counted = timeline([each for source in [leg, *joined] for each in source.kept], rules)
        leg.known = newest_details(each for source in [leg, *joined] for each in source.sights)
    return found


def newest_details(sights: Iterable[CommunicationSight]) -> dict[str, Any]:
    """What these say together: of each detail the newest value."""
    return {name: value for name, (_, value) in registers((each.version, each.details) for each in sights).items()}


def belongs(flat_leg: Leg, nested_leg: Leg) -> bool:
    """Whether the flat one joined that nested one."""
    same_place = (flat_leg.participant_id, flat_leg.medium) == (nested_leg.participant_id, nested_leg.medium)
    return same_place and flat_leg.joined_to == nested_leg.communication_id


def place(leg: Leg, all_legs: Iterable[Leg]) -> None:
    """Decide where a flat communication belongs among the participant's nested ones of its medium."""
    candidates = [
        each
        for each in all_legs
        if each.communication_id and (each.participant_id, each.medium) == (leg.participant_id, leg.medium)
    ]
    if leg.session_digest is not None:
        same = [each for each in candidates if leg.session_digest in each.sessions]
        candidates = same or [each for each in candidates if not each.sessions]
    if len(candidates) == 1:
        leg.standing, leg.joined_to = "joined", candidates[0].communication_id
    else:
        leg.standing = "ambiguous" if candidates else "alone"


def sights_by_conversation(records: Iterable[Record], rules: Rules) -> dict[str, list[Sight]]:
    """The usable records' sights of each conversation."""
    found: dict[str, list[Sight]] = defaultdict(list)
    for record in records:
        verdict = judge(record, rules)
        if isinstance(verdict, Sight):
            found[verdict.conversation_id].append(verdict)
    return found


def conversations(records: Iterable[Record], rules: Rules) -> dict[str, dict[str, Any]]:
    """Conversation id -> the document of the state topic, as `json.loads` gives it, without `source`."""
    grouped = sights_by_conversation(records, rules)
    return {each: conversation_document(each, sights, rules) for each, sights in grouped.items()}


def conversation_document(conversation_id: str, sights: Sequence[Sight], rules: Rules) -> dict[str, Any]:
    """The published state of one conversation."""
    all_legs = legs(sights, rules)
    participants = sorted({each.participant_id for sight in sights for each in sight.participants})
    document: dict[str, Any] = {
        "schema": 1,
        "conversationId": conversation_id,
        "snapshotTime": canonical(max(sight.snapshot_ms for sight in sights)),
        "live": sum(is_live(leg) for leg in all_legs),
        "communications": counts(all_legs),
        "liveSince": live_since(all_legs),
    }
    if participants:
        document["participants"] = [participant_document(each, sights, all_legs) for each in participants]
    return document


def is_live(leg: Leg) -> bool:
    """Whether a communication counts and has not ended."""
    return bool(leg.counted) and leg.counted[-1].rank <= LIVE


def counts(all_legs: Iterable[Leg]) -> dict[str, dict[str, int]]:
    """Communications that count, by media and state."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for leg in all_legs:
        if leg.counted:
            found[leg.medium][leg.counted[-1].state] += 1
    return found


def live_since(all_legs: Iterable[Leg]) -> dict[str, list[str]]:
    """When the live communications of each medium began."""
    began = [(leg.medium, canonical(changes(leg.counted)[0].time_ms)) for leg in all_legs if is_live(leg)]
    return {medium: sorted({time for each, time in began if each == medium}) for medium, _ in began}


def participant_document(participant_id: str, sights: Iterable[Sight], all_legs: Iterable[Leg]) -> dict[str, Any]:
    """The published state of one participant."""
    shown = [
        (canonical(sight.snapshot_ms), each.details)
        for sight in sights
        for each in sight.participants
        if each.participant_id == participant_id
    ]
    newest = max(time for time, _ in shown)
    details = registers(shown)
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
    """The published state of one communication, whose participant was shown last at `newest`."""
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
    if own != leg.known:
        optional["ownDetails"] = own
    older = {name: version_document(at) for name, (at, _) in leg.details.items() if at != leg.version}
    if older:
        optional["detailVersions"] = older
    if leg.sessions:
        optional["otherSessionDigests"] = sorted(leg.sessions - {leg.details["cobrowseSessionDigest"][1]}) or None
    version = version_document(leg.version)
    if version["snapshotTime"] == newest:
        del version["snapshotTime"]
    return {
        "media": leg.medium,
        "details": leg.known,
        "version": version,
        "timeline": [observation_document(each) for each in leg.kept],
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
"""The members of a transition that do not tell of arrival."""


def standing(records: Iterable[Record], rules: Rules) -> dict[str, list[dict[str, Any]]]:
    """Conversation id -> its standing transitions, communication by communication, each in order."""
    grouped = sights_by_conversation(records, rules)
    return {each: standing_of(each, sights, rules) for each, sights in grouped.items()}


def standing_of(conversation_id: str, sights: Sequence[Sight], rules: Rules) -> list[dict[str, Any]]:
    """The standing transitions of one conversation."""
    return [
        transition_document(conversation_id, leg, change)
        for leg in legs(sights, rules)
        for change in changes(leg.counted)
    ]


def transition_document(conversation_id: str, leg: Leg, change: Change) -> dict[str, Any]:
    """The published form of a transition, without what tells of arrival."""
    into, time = change.observation, canonical(change.time_ms)
    identity = [conversation_id, leg.participant_id, leg.medium, leg.shown_id or "", change.from_state or ""]
    identity += [into.state, str(into.rank), into.cycle, time]
    return {
        "id": digest("\x1f".join(identity), b""),
        "conversationId": conversation_id,
        "participantId": leg.participant_id,
        "communicationId": leg.shown_id,
        "media": leg.medium,
        "from": change.from_state,
        "to": into.state,
        "eventTime": time,
        "timeClass": into.time_class,
        "millisecondsInFrom": change.ms_in_from,
    }


def contexts(records: Iterable[Record], rules: Rules) -> dict[str, dict[str, Any]]:
    """Id of each standing transition -> the `context` that it would be asserted with by all these records."""
    found = {}
    for conversation_id, sights in sights_by_conversation(records, rules).items():
        for leg in legs(sights, rules):
            context = context_document(leg, sights)
            for change in changes(leg.counted):
                found[transition_document(conversation_id, leg, change)["id"]] = context
    return found


def context_document(leg: Leg, sights: Iterable[Sight]) -> dict[str, Any]:
    """What is known of a communication and its participant, as far as a transition tells of it."""
    shown = [
        (sight.snapshot_ms, each.details)
        for sight in sights
        for each in sight.participants
        if each.participant_id == leg.participant_id
    ]
    participant = registers(shown)
    context = {name: participant[name][1] for name in ("purpose", "userId", "queueId") if name in participant}
    return context | ({"disconnectType": leg.known["disconnectType"]} if "disconnectType" in leg.known else {})


def net(operations: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Transition id -> the transition, of those whose last operation is an assertion; only `STANDING_KEYS` are kept."""
    last = {operation["id"]: operation for operation in operations}
    return {
        each: {name: operation[name] for name in STANDING_KEYS}
        for each, operation in last.items()
        if operation["op"] == "assert"
    }


def check_log(operations: Iterable[dict[str, Any]], *, parks_fall_out: bool = False) -> None:
    """Assert that the log, read in order, tells a right story of each communication after every operation.

    Where parks fall out, which is from the middle, it is right after the last of the operations that a record gave
    rise to, and the time spent in a state may be shorter: it was left and entered again.

    What stands must at each moment begin in no state, continue where the one before ended, run through the ranks and
    through time without going back, and say rightly how long it took. So a retraction takes the last that stands,
    with the values it was asserted with, and an assertion is appended to what stands.
    """
    stories: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    ids: set[str] = set()
    log = list(operations)
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
        is_within = parks_fall_out and number + 1 < len(log) and log[number + 1]["source"] == operation["source"]
        if not is_within:
            check_story(story, where, parks_fall_out=parks_fall_out)


def check_story(story: Sequence[dict[str, Any]], where: str, *, parks_fall_out: bool = False) -> None:
    """Assert that the standing transitions of one communication follow from each other."""
    state: str | None = None
    rank, time_ms = BEFORE, 0
    for each in story:
        entered_ms = text_ms(each["eventTime"])
        assert entered_ms is not None, f"no time: {where}"
        assert each["from"] == state, f"starts in {each['from']!r}, not in {state!r}: {where}"
        assert each["to"] != state, f"changes nothing: {where}"
        assert entered_ms >= time_ms, f"goes back in time: {where}"
        assert KNOWN_RANKS.get(each["to"], rank) >= rank, f"goes back in the lifecycle: {where}"
        spent = None if state is None else entered_ms - time_ms
        if parks_fall_out and spent is not None:
            assert 0 <= each["millisecondsInFrom"] <= spent, f"took at most {spent} ms: {where}"
        else:
            assert each["millisecondsInFrom"] == spent, f"took {spent} ms: {where}"
        state, rank, time_ms = each["to"], KNOWN_RANKS.get(each["to"], max(rank, LIVE)), entered_ms
