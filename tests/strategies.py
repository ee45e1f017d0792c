"""Hypothesis strategies and builders of records, shared by all tests.

Everything comes from small alphabets, so that ids collide, times tie and records contradict each other. Snapshot
times stay within a few hours after `BASE_MS`, so no conversation is late or idle in any order of arrival.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consumer.core.record import Record

BASE_MS = 1_767_261_600_000
"""2026-01-01T10:00:00Z, the arbitrary start of all histories."""
TOPIC = "conversation-updates"
CONVERSATION_IDS = ("c1", "c2")
COMMUNICATION_IDS = ("m1", "m2", "m3")
SESSION_IDS = ("s1", "s2")
FEWER = settings(max_examples=settings().max_examples * 3 // 10)
"""For properties whose examples are expensive."""

Json = dict[str, Any]


def iso(ms: int) -> str:
    """The time as Genesys writes it in conversation bodies."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def at(seconds: float) -> str:
    """The wire time `seconds` after the start."""
    return iso(BASE_MS + round(seconds * 1000))


def make_record(
    document: Any,
    *,
    seconds: float = 0.0,
    key: str | None = "c1",
    offset: int = 0,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> Record:
    """The record of a JSON document (or of raw bytes), published `seconds` after the start."""
    value = document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode()
    timestamp_ms = BASE_MS + round(seconds * 1000)
    return Record(TOPIC, 0, offset, timestamp_ms, None if key is None else key.encode(), value, headers)


def websocket(topic: str, body: Any) -> Json:
    """A WebSocket notification."""
    return {"topicName": topic, "version": "2", "eventBody": body, "metadata": {"CorrelationId": "n1"}}


def eventbridge(topic: str, body: Any, timestamp: Any = None) -> Json:
    """An EventBridge event; its own `id` is not the conversation's."""
    detail = websocket(topic, body) | ({} if timestamp is None else {"timestamp": timestamp})
    template = ".".join("{id}" if part == "u1" else part for part in topic.split("."))
    return {
        "version": "0",
        "id": "e1",
        "detail-type": template,
        "source": "aws.partner/genesys.com/cloud/o1/n1",
        "time": "2026-01-01T10:00:00Z",
        "resources": [],
        "detail": detail,
    }


def frame_in(**members: Any) -> Callable[[bytes], bytes]:
    """Put a value as text into an object, in place of `...`."""
    return lambda value: json.dumps(
        {name: value.decode() if member is ... else member for name, member in members.items()}
    ).encode()


FRAMES: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: b"\xef\xbb\xbf" + value,
    lambda value: b"\0\0\0\0\x07" + value,
    lambda value: b'{"schema":{"type":"struct"},"payload":' + value + b"}",
    lambda value: b'{"specversion":"1.0","id":"c1","source":"/r","type":"t","data":' + value + b"}",
    lambda value: json.dumps(value.decode()).encode(),
    lambda value: b"[" + value + b", " + value + b"]",
    lambda value: value + b"\n" + value,
    frame_in(schema=None, payload=...),
    frame_in(specversion="1.0", id="c1", data=...),
    frame_in(Type="Notification", MessageId="n1", Message=...),
    frame_in(MessageId="n1", ReceiptHandle="r1", Body=...),
    frame_in(messageId="n1", body=...),
)
"""What relays put around a value."""
SPELLINGS: tuple[Callable[[bytes], bytes], ...] = (
    bytes.upper,
    lambda key: b'"' + key + b'"',
    lambda key: b"\0\0\0\0\x05" + key,
    lambda key: b'\0\0\0\0\x05"' + key + b'"',
    lambda key: b'{"schema":{"type":"string"},"payload":"' + key + b'"}',
)
"""How relays spell a key."""

NESTED_TOPICS = (
    "v2.users.u1.conversations",
    "v2.routing.queues.u1.conversations",
    "v2.routing.queues.u1.conversations.videos",
    "V2.Routing.Queues.u1.Conversations.socialExpressions",
)
MEDIA = {
    "calls": "call",
    "callbacks": "callback",
    "chats": "chat",
    "cobrowsesessions": "cobrowse",
    "emails": "email",
    "internalMessages": "internalmessage",
    "messages": "message",
    "screenMonitorings": "screenmonitoring",
    "screenshares": "screenshare",
    "socialExpressions": "socialexpression",
    "videos": "video",
}
"""Array of the nested shape -> medium."""
FLAT_SUFFIXES = (
    "calls",
    "callbacks",
    "chats",
    "cobrowseSessions",
    "emails",
    "messages",
    "screenshares",
    "socialexpressions",
    "videos",
)
FLAT_TOPICS = (
    *(f"v2.users.u1.conversations.{suffix}" for suffix in FLAT_SUFFIXES),
    "v2.routing.queues.u1.conversations.cobrowsesessions",
    "v2.routing.queues.u1.conversations.calls",
)
OTHER_TOPICS = (
    "channel.metadata",
    "v2.system.socket_closing",
    "v2.system.",
    "v2.detail.events.conversation.u1.acd.start",
    "v2.conversations.u1.transcription",
    "v2.conversations.u1",
    "v2.users.u1.conversationsummary",
    "v2.users.u1.conversations.internalmessages",
    "v2.users.u1.conversations.calls.more",
    "v2.users.u1.more.conversations",
    "v2.routing.queues.u1.conversations.screenMonitorings",
)

BEFORE = ("none", "scheduled", "offering", "contacting", "dialing", "alerting")
LIVE = ("connected", "parked", "uploading", "converting", "transmitting")
ENDED = ("disconnected", "terminated")

states: st.SearchStrategy[str | None] = st.one_of(
    st.sampled_from(("alerting", "connected", "connected", "parked", "disconnected", "terminated")),
    st.sampled_from((*BEFORE, *LIVE, *ENDED)),
    st.sampled_from(("vanished", "Alerting", "CONNECTED", "NEW_STATE", "new.state", "Disconnected", "", None)),
)

near_ms: st.SearchStrategy[int] = st.sampled_from(
    [0, 1, 500, 1000, 1999, 2000, 2001, 3000, 4000, 5000, 5100, 9000, 60_000, 299_999, 300_000, 300_001, 3_600_000]
).map(lambda offset_ms: BASE_MS + offset_ms)
"""Epoch milliseconds near the start, from few values, so that ties are frequent."""


def spell(ms: int) -> st.SearchStrategy[Any]:
    """A time in one of its equivalent spellings."""
    text = iso(ms)
    seconds, fraction = text[:-5], text[-4:-1]
    shifted = iso(ms + 5_400_000)[:-1]
    return st.sampled_from(
        [
            text,
            text,
            text,
            ms,
            ms + 0.75,
            float(ms),
            text.replace("T", " "),
            text[:-1],
            f"{seconds}.{fraction}999999Z",
            f"{seconds}.{fraction}+00:00",
            f"{shifted}+01:30",
            f"{shifted}+0130",
        ]
    )


unusable_times: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        "",
        "soon",
        "2026-01-01",
        "2026-01-01T10:00Z",
        "2026-01-01t10:00:00z",
        "2026-13-01T10:00:00Z",
        "2026-02-30T10:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T10:00:60Z",
        "2026-01-01T10:00:00.Z",
        "2026-01-01T10:00:00.1234567890Z",
        "2026-01-01T10:00:00+25:00",
        "2026-01-01T10:00:00+01",
        " 2026-01-01T10:00:00Z",
        "2026-01-01T10:00:00Z\n",
        "\u0662\u0660\u0662\u0666-01-01T10:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999-23:59",
        "2009-12-31T23:59:59.999Z",
        "2100-01-01T00:00:00Z",
        0,
        -1,
        -0.5,
        1.5,
        1_767_261_600,
        10**30,
        -(10**30),
        1e300,
        253_402_300_800_000,
    ]
)
"""Times of a valid type that are malformed, before 2010 or far in the future."""

wire_times: st.SearchStrategy[Any] = st.one_of(near_ms.map(iso), near_ms.flatmap(spell), unusable_times)

rarely = st.sampled_from([False] * 19 + [True])
LONGEST = "\u00e9" * 256
"""As long as a text that is kept may be, in characters."""
words = st.sampled_from(["a", "b", "A_b", "\u00e9", "\U0001f600", "\ufffd", "", None] * 20 + [LONGEST, LONGEST + "x"])
flags = st.sampled_from([True, False, None])
wrapups = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "code": words,
        "durationSeconds": st.sampled_from([0, 9, 10, -1, 2**53, 2**53 + 1, 10**30, None]),
        "notes": st.just("private"),
        "tags": st.just(["private", 1]),
    },
)
after_call_works = st.none() | st.fixed_dictionaries(
    {}, optional={"state": words, "startTime": wire_times, "endTime": wire_times}
)

references = st.sampled_from([None, {}, {"id": "a"}, {"id": "b", "name": "Private"}, {"id": None}, {"id": ""}])
counts = st.sampled_from([0, 3, 16, -1, 2.0, 2**53 + 1, None])
error_infos = st.sampled_from([None, {}, {"code": ""}, {"code": "error.x", "message": "private"}, {"code": "error.y"}])


def lists(*elements: Any) -> st.SearchStrategy[Any]:
    """Lists of some of these elements, seldom about as long as one may be."""
    short = st.lists(st.sampled_from(elements), max_size=3)
    return st.one_of(st.none(), short, short, short, st.sampled_from([100, 101]).map(lambda size: [elements[0]] * size))


reasons = lists(
    {"type": "q850", "code": 16, "phrase": "private"},
    {"type": "SIP", "code": 486.0},
    {"type": "sip"},
    {"code": 1},
    None,
)
addresses = st.sampled_from(
    [None, {}, {"addressNormalized": "a", "name": "Private"}, {"addressNormalized": "", "addressRaw": "b"}]
)
routings = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "queue": references,
        "language": references,
        "priority": counts,
        "skills": lists({"id": "s2", "name": "private"}, {"id": "s1"}, {}, None),
    },
)
transfers = lists(
    {"id": "t1", "state": "COMPLETE", "transferType": "unattended", "initiator": {"userId": "a"}, "destination": {}},
    {"id": "t1", "state": "active", "dateIssued": iso(BASE_MS + 4_000), "destination": {"address": "private"}},
    {
        "id": "t2",
        "transferType": "attended",
        "dateIssued": "soon",
        "destination": {"userId": "\u00e9"},
        "initiator": None,
    },
    {"id": "", "state": "active"},
    None,
)
CONVERSATION: dict[str, st.SearchStrategy[Any]] = {
    "externalTag": words,
    "divisions": lists(
        {"division": {"id": "d2"}}, {"division": {"id": "d1"}, "entities": []}, {"division": None}, None
    ),
    "recentTransfers": transfers,
}

CORE: dict[str, st.SearchStrategy[Any]] = {
    "initialState": st.sampled_from(["alerting", "CONNECTED", None]),
    "provider": words,
    "disconnectType": st.sampled_from(["client", "peer", "TRANSFER_CONFERENCE", "endpoint", None]),
    "connectedTime": wire_times,
    "disconnectedTime": wire_times,
    "additionalProperties": st.just({}),
}
ALERTING: dict[str, st.SearchStrategy[Any]] = {"startAlertingTime": wire_times}
ROUTED: dict[str, st.SearchStrategy[Any]] = (
    CORE
    | ALERTING
    | {
        "peerId": words,
        "wrapup": wrapups,
        "afterCallWork": after_call_works,
        "afterCallWorkRequired": flags,
    }
)
COBROWSE: dict[str, st.SearchStrategy[Any]] = {
    "cobrowseSessionId": st.sampled_from([*SESSION_IDS, *SESSION_IDS, "", None]),
    "cobrowseRole": st.sampled_from(["sharer", "Viewer", None]),
    "controlling": st.none() | st.lists(st.sampled_from(["m2", "m1", None]), max_size=3),
    "viewerUrl": st.sampled_from(["https://viewer.example.test/?token=SECRET", "", None]),
    "providerEventTime": wire_times,
}
HELD: dict[str, st.SearchStrategy[Any]] = {"held": flags, "startHoldTime": wire_times}
FAILED: dict[str, st.SearchStrategy[Any]] = {"errorInfo": error_infos}
ONLY_CALL: dict[str, st.SearchStrategy[Any]] = FAILED | {"muted": flags, "disconnectReasons": reasons}
ONLY_CALLBACK: dict[str, st.SearchStrategy[Any]] = {"callbackScheduledTime": wire_times}
DIRECTED: dict[str, st.SearchStrategy[Any]] = HELD | {"direction": st.sampled_from(["inbound", "OUTBOUND", None])}
PARKABLE: dict[str, st.SearchStrategy[Any]] = DIRECTED | {"parkTime": wire_times, "resumeTime": wire_times}
EVERYTHING: dict[str, st.SearchStrategy[Any]] = (
    ROUTED
    | PARKABLE
    | COBROWSE
    | ONLY_CALL
    | ONLY_CALLBACK
    | {"type": words, "roomId": words, "scriptId": words, "self": addresses}
)
"""All members at once, also those that a medium does not have: they must not be read there."""
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "calls": ROUTED | DIRECTED | ONLY_CALL,
    "callbacks": ROUTED | DIRECTED | ONLY_CALLBACK,
    "chats": ROUTED | HELD,
    "cobrowsesessions": ROUTED | COBROWSE | {"roomId": words, "self": addresses},
    "emails": ROUTED | PARKABLE | FAILED,
    "internalMessages": CORE | ALERTING,
    "messages": ROUTED | PARKABLE | FAILED | {"type": st.sampled_from(["webmessaging", "SMS", None])},
    "screenMonitorings": CORE,
    "screenshares": ROUTED,
    "socialExpressions": ROUTED | HELD,
    "videos": ROUTED,
}


DETAIL_NAMES = ("disconnectType", "held", "startHoldTime", "errorInfo", "wrapup")
"""Details that have the same name in both shapes."""
TIME_NAMES = ("connectedTime", "disconnectedTime", "parkTime", "providerEventTime", "startAlertingTime")


@st.composite
def some_of(draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[Any]], size_max: int = 6) -> Json:
    """An object with up to `size_max` of these members; cheaper than optional keys of Hypothesis."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=size_max))
    return {name: draw(fields[name]) for name in names}


@st.composite
def communications(draw: st.DrawFn, array: str) -> Json | None:
    """A communication of the nested shape; rarely null, without id or with members of other media."""
    if draw(rarely):
        return None
    fields = EVERYTHING if draw(rarely) else FIELDS[array]
    times = {name: near_ms.map(iso) for name in fields if name in TIME_NAMES}
    communication = draw(some_of(fields)) | draw(some_of(times, 3))
    communication["id"] = draw(st.sampled_from([*COMMUNICATION_IDS] * 6 + [None, ""]))
    communication["state"] = draw(states)
    return communication


PARTICIPANT: dict[str, st.SearchStrategy[Any]] = {
    "purpose": st.sampled_from(["agent", "CUSTOMER", "dialer_system", None]),
    "wrapupRequired": flags,
    "consultParticipantId": words,
    "monitoredParticipantId": words,
    "coachedParticipantId": words,
    "bargedParticipantId": words,
    "conversationRoutingData": routings,
    "startAcwTime": wire_times,
    "endAcwTime": wire_times,
    "wrapup": wrapups,
    "name": st.just("Private Person"),
    "attributes": st.just({"context.email": "private@example.test"}),
}
NESTED_PARTICIPANT = PARTICIPANT | dict.fromkeys(("userId", "queueId", "teamId", "externalContactId", "groupId"), words)
FLAT_PARTICIPANT = PARTICIPANT | dict.fromkeys(("user", "queue", "team", "externalContact", "group"), references)
participant_ids = st.sampled_from(["p1"] * 9 + ["p2", "p3"] * 4 + [None, ""])


@st.composite
def nested_participants(draw: st.DrawFn, arrays: tuple[str, ...] = tuple(MEDIA)) -> Json:
    """A participant of the nested shape with few communications."""
    participant = draw(some_of(NESTED_PARTICIPANT, 3))
    participant["id"] = draw(participant_ids)
    for array in draw(st.lists(st.sampled_from(arrays), unique=True, min_size=1, max_size=2)):
        participant[array] = None if draw(rarely) else draw(st.lists(communications(array), min_size=1, max_size=2))
    return participant


@st.composite
def flat_participants(draw: st.DrawFn, suffix: str) -> Json:
    """A participant of the flat shape, which has the state itself."""
    common = (
        DIRECTED
        | CORE
        | FAILED
        | ONLY_CALLBACK
        | {
            "peer": words,
            "startTime": wire_times,
            "endTime": wire_times,
            "parkTime": wire_times,
        }
    )
    foreign = {"muted": flags, "type": words, **COBROWSE}
    if suffix.lower() == "cobrowsesessions":
        common |= COBROWSE
    elif draw(st.integers(0, 3)) == 0:
        common |= foreign
    participant = draw(some_of(FLAT_PARTICIPANT, 2)) | draw(some_of(common))
    participant["id"] = draw(participant_ids)
    participant["state"] = draw(states)
    return participant


@st.composite
def bodies(draw: st.DrawFn, conversation_id: str | None, participants: st.SearchStrategy[Json]) -> Json:
    """A conversation with one or two participants; rarely one is null, or there are none."""
    body: Json = {"id": conversation_id, "maxParticipants": 9}
    if draw(st.integers(0, 3)) == 0:
        body |= draw(some_of(CONVERSATION, 2))
    if draw(rarely):
        return body | draw(st.sampled_from([{}, {"participants": None}, {"participants": []}]))
    listed = draw(st.lists(participants, min_size=1, max_size=2))
    return body | {"participants": [None if draw(rarely) else participant for participant in listed]}


@st.composite
def documents(
    draw: st.DrawFn,
    conversation_id: str | None = "c1",
    arrays: tuple[str, ...] = tuple(MEDIA),
    suffixes: tuple[str, ...] = FLAT_SUFFIXES,
    snapshot_times: st.SearchStrategy[Any] = wire_times,
) -> Json:
    """A conversation update in any envelope and either shape."""
    nested = not suffixes or draw(st.integers(0, 2)) > 0
    if nested:
        topic = draw(st.sampled_from(NESTED_TOPICS))
        body = draw(bodies(conversation_id, nested_participants(arrays)))
    else:
        suffix = draw(st.sampled_from(suffixes))
        topic = f"v2.users.u1.conversations.{draw(st.sampled_from([suffix, suffix.upper()]))}"
        body = draw(bodies(conversation_id, flat_participants(suffix)))
    match draw(st.integers(0, 5)):
        case 0:
            return eventbridge(topic, body, draw(snapshot_times))
        case 1 if nested:
            return body
        case 2 if nested:
            return {"eventBody": body}
        case _:
            return websocket(topic, body)


@st.composite
def records(
    draw: st.DrawFn,
    conversation_ids: tuple[str | None, ...] = CONVERSATION_IDS,
    arrays: tuple[str, ...] = tuple(MEDIA),
    suffixes: tuple[str, ...] = FLAT_SUFFIXES,
) -> Record:
    """A conversation update on Kafka, offset 0; rarely with a wrong key, sometimes with a `snapshot-time` header."""
    conversation_id = draw(st.sampled_from(conversation_ids))
    document = draw(documents(conversation_id, arrays, suffixes))
    timestamp_ms = draw(near_ms)
    header = draw(
        st.one_of(
            st.none(),
            st.none(),
            near_ms.map(lambda ms: str(ms).encode()),
            st.sampled_from([b"", b"soon", b"-1", b"0", b"1767261600", b" 1767261600000", b"9" * 5000, b"\xff", None]),
        )
    )
    headers: tuple[tuple[str, bytes | None], ...] = () if header is None else (("snapshot-time", header),)
    key = draw(st.sampled_from([None, "other", ""])) if draw(rarely) else conversation_id
    record = make_record(document, seconds=(timestamp_ms - BASE_MS) / 1000, key=key, headers=headers)
    if draw(rarely):
        frames = draw(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=2))
        record = replace(record, value=reduce(lambda value, frame: frame(value), frames, record.value or b""))
    if record.key and draw(rarely):
        record = replace(record, key=draw(st.sampled_from(SPELLINGS))(record.key))
    return record


def number_offsets(history: Iterable[Record], first_offset: int = 0) -> list[Record]:
    """The records with consecutive offsets in this order."""
    return [replace(record, offset=offset) for offset, record in enumerate(history, first_offset)]


@st.composite
def focused_histories(draw: st.DrawFn, size_max: int = 8) -> list[Record]:
    """Records about one participant's communications in one medium, nested and flat, so that they collide often."""
    suffix = draw(st.sampled_from([*FLAT_SUFFIXES, *["cobrowseSessions"] * 6, *["messages"] * 3]))
    array = next(name for name in MEDIA if name.lower() == suffix.lower())
    history = []
    for _ in range(draw(st.integers(1, size_max))):
        times = draw(some_of(dict.fromkeys(TIME_NAMES, near_ms.map(iso)), 3))
        communication: Json = {"state": draw(states)} | times
        communication |= draw(some_of({name: FIELDS[array][name] for name in DETAIL_NAMES if name in FIELDS[array]}, 2))
        if array == "cobrowsesessions":
            communication["cobrowseSessionId"] = draw(st.sampled_from([*SESSION_IDS, None]))
        if draw(st.booleans()):
            communication["id"] = draw(st.sampled_from(COMMUNICATION_IDS))
            document = websocket(NESTED_TOPICS[0], {"id": "c1", "participants": [{"id": "p1", array: [communication]}]})
        else:
            communication["endTime"] = communication.pop("disconnectedTime", None)
            participant = {"id": "p1"} | communication
            document = websocket(f"v2.users.u1.conversations.{suffix}", {"id": "c1", "participants": [participant]})
        record = make_record(document, seconds=(draw(near_ms) - BASE_MS) / 1000)
        history.append(replace(record, timestamp_ms=draw(st.sampled_from((-1, 0)))) if draw(rarely) else record)
    return number_offsets(history)


@st.composite
def histories(
    draw: st.DrawFn, conversation_ids: tuple[str | None, ...] = CONVERSATION_IDS, size_max: int = 8
) -> list[Record]:
    """Records that contradict each other, with unique offsets.

    Some histories mix everything, some have one medium in both shapes, some one participant in one medium.
    """
    match draw(st.sampled_from(["wide", "narrow", "narrow", "focused", "focused"])):
        case "focused":
            return draw(focused_histories(size_max))
        case "narrow":
            array = draw(st.sampled_from([*MEDIA, *["cobrowsesessions"] * 5, *["messages"] * 3]))
            suffixes = tuple(suffix for suffix in FLAT_SUFFIXES if suffix.lower() == array.lower())
            source = records(conversation_ids, (array,), suffixes)
        case _:
            source = records(conversation_ids)
    return number_offsets(draw(st.lists(source, min_size=1, max_size=size_max)))


noise_documents: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(OTHER_TOPICS).map(lambda topic: websocket(topic, {"message": "WebSocket Heartbeat"})),
    st.sampled_from(OTHER_TOPICS).map(lambda topic: eventbridge(topic, {"id": 5, "participants": "x"}, "now")),
    st.sampled_from(
        [
            {"result": "200", "status": "subscribed"},
            {"result": 404},
            {"status": "x", "id": None},
            {"topicName": "channel.metadata", "eventBody": {"message": "pong"}},
            {},
            {"id": "c1"},
            {"id": "", "participants": []},
            {"id": "c1", "participants": [None, {}]},
            {"id": "c1", "participants": [{"id": "p1", "state": "connected"}]},
            {"id": "c1", "participants": [{"id": "p1", "state": "connected", "calls": None}]},
            {"id": "c1", "participants": [{"id": "p1", "state": "connected", "calls": []}]},
            {"id": "c1", "participants": [{"id": "p1", "state": ""}]},
            {"eventBody": {"id": "c1", "participants": [{"id": "p1", "state": "connected"}]}},
            {"topicName": "v2.users.u1.conversations", "eventBody": {"id": 5}},
            {"topicName": "v2.users.u1.conversations", "eventBody": {"id": "c1", "participants": [{"id": True}]}},
            {"topicName": "v2.users.u1.conversations", "eventBody": None},
            {"topicName": 5},
            [],
            5,
            "x",
            None,
        ]
    ),
)
noise_bytes: st.SearchStrategy[bytes | None] = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            None,
            b"",
            b"{",
            b"\xef\xbb\xbf{}",
            b'{"id":"c1"} x',
            b'{"id":"c1","id":"c2"}',
            b'{"id":5,"id":"c1"}',
            b'{"id":"\xff"}',
            b'{"zz":"\xff","id":"c1"}',
            b'{"id":"\\ud800"}',
            b'{"zz":"\\ud800","id":"c1"}',
            b'{"id":"c1","zz":"\\udc00\\ud83d\\ude00\\uD83D\\ud83d","\\uDBFF":"\\\\ud83d\\\\\\ud83d"}',
            b'{"id":"c1","zz":"\\ud83d\\ude0"}',
            b'{"topicName":"channel.metadata","eventBody":{"id":5,"zz":"\\ud83d"}}',
            b'{"\\u0069d":"c1"}',
            b'{"id":"c1","zz":NaN}',
            b'{"id":"c1","zz":1e400}',
            b'{"id":"c1","participants":[{"id":"p1","calls":[{"id":"m1","connectedTime":1e400}]}]}',
            b'{"id":"c1","participants":[{"id":"p1","calls":[{"id":"m1","connectedTime":NaN}]}]}',
            b'{"id":"c1","participants":[{"id":"p1","calls":[{"id":"m1","connectedTime":' + b"1" * 5000 + b"}]}]}",
            b'{"id":"c1","participants":[{"id":"p1","calls":[{"wrapup":{"durationSeconds":3.0}}]}]}',
            b'{"id":"c1","zz":' + b"[" * 50 + b"]" * 50 + b"}",
            b'{"id":"c1","zz":' + b"[" * 5000 + b"]" * 5000 + b"}",
            b"[" * 100_000,
        ]
    ),
)


@st.composite
def noise_records(draw: st.DrawFn) -> Record:
    """A record that is not a conversation update, or not readable. Offset 0."""
    value = draw(noise_bytes | noise_documents.map(lambda document: json.dumps(document).encode()))
    timestamp_ms = draw(st.sampled_from([BASE_MS, BASE_MS, BASE_MS, 0, -1]))
    key = draw(st.sampled_from([b"c1", b"c1", None, b"\xff"]))
    return Record(TOPIC, 0, 0, timestamp_ms, key, value)


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """A valid value with one fault: a flipped bit, another byte, too few or too many bytes, deep nesting."""
    value = draw(values)
    index = draw(st.integers(0, max(0, len(value) - 1)))
    before, after = value[:index], value[index:]
    match draw(st.sampled_from(["bit", "byte", "end", "insert", "repeat", "drop", "retype", "deep"])):
        case "bit":
            flipped = (after[:1] or b"{")[0] ^ (1 << draw(st.integers(0, 7)))
            return before + bytes([flipped]) + after[1:]
        case "byte":
            return before + draw(st.binary(min_size=1, max_size=1)) + after[1:]
        case "end":
            return before
        case "insert":
            inserted = [
                b"\xff",
                b"\xc3",
                b"\xed\xa0\x80",
                b"\\ud800",
                b"\\uD83D\\udE00",
                b"\\",
                b"\x00",
                b"null",
                b"5",
                b"1e400",
                b",",
                b'"',
            ]
            return before + draw(st.sampled_from(inserted)) + after
        case "repeat":
            return before + after[: draw(st.integers(1, 40))] + after
        case "drop":
            return before + after[draw(st.integers(1, 40)) :]
        case "retype":
            old, new = draw(st.permutations([b'"p1"', b"null", b"true", b"[]", b"{}", b"5", b"5.5", b'"alerting"']))[:2]
            return value.replace(old, new, 1)
        case _:
            depth = draw(st.sampled_from([50, 5000]))
            return value.replace(b"{", b'{"zz":' + b"[" * depth + b"]" * depth + b",", 1)


values = records(("c1",)).map(lambda record: record.value or b"")
"""The values of valid conversation updates."""
damaged_records = damaged(values).map(make_record)

deep_values: st.SearchStrategy[bytes] = st.builds(
    lambda opening, count, tail: opening * count + tail,
    st.sampled_from([b"[", b'{"a":', b'{"eventBody":', b'{"participants":[']),
    st.sampled_from([1, 127, 128, 129, 255, 256, 257, 3000]),
    st.binary(max_size=4),
)
"""Values that nest about as deep as the limit, or far deeper, and are not closed."""
noise: st.SearchStrategy[bytes | None] = st.one_of(
    noise_bytes,
    noise_documents.map(lambda document: json.dumps(document).encode()),
    damaged(values),
    deep_values,
)
"""The value of a record that is not a conversation update, or of a damaged one."""


@dataclass(frozen=True)
class LifeStory:
    """The true history of one conversation, with a full snapshot after every event."""

    records: tuple[Record, ...]
    truth: dict[tuple[str, str, str], tuple[tuple[str, int], ...]]
    """(participant, medium, communication) -> the states entered, with their epoch milliseconds."""


PATHS = {
    "calls": ("contacting", "dialing", "connected", "disconnected", "terminated"),
    "callbacks": ("scheduled", "alerting", "connected", "disconnected", "terminated"),
    "chats": ("alerting", "connected", "disconnected", "terminated"),
    "cobrowsesessions": ("none", "offering", "alerting", "connected", "disconnected", "terminated"),
    "emails": ("alerting", "connected", "parked", "connected", "parked", "connected", "disconnected"),
    "internalMessages": ("alerting", "connected", "disconnected"),
    "messages": ("alerting", "connected", "parked", "connected", "parked", "disconnected"),
    "screenMonitorings": ("none", "connected", "disconnected"),
    "screenshares": ("alerting", "connected", "disconnected", "terminated"),
    "socialExpressions": ("alerting", "connected", "disconnected", "terminated"),
    "videos": ("contacting", "dialing", "connected", "disconnected", "terminated"),
}
"""The full life of a communication in each medium."""


@st.composite
def life_stories(draw: st.DrawFn, arrays: tuple[str, ...] = tuple(MEDIA), conversation_id: str = "c1") -> LifeStory:
    """A conversation whose communications live realistic lives; its snapshots are complete and in their true order.

    A snapshot follows its event by up to 900 ms, termination follows disconnection by a second. Co-browse sessions
    carry the provider's time of their last event.
    """
    legs: dict[tuple[str, str, str], Json] = {}
    truth: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    plans: dict[tuple[str, str, str], list[str]] = {}
    for number in range(draw(st.integers(1, 3))):
        leg = (f"p{number % 2 + 1}", draw(st.sampled_from(arrays)), f"m{number + 1}")
        path = PATHS[leg[1]]
        plans[leg] = list(path[draw(st.integers(0, path.index("connected"))) :])
    now_ms, history = BASE_MS, []
    while any(plans.values()):
        ending = [planned for planned, plan in plans.items() if plan == ["terminated"] and planned in legs]
        leg = draw(st.sampled_from(ending or [planned for planned, plan in plans.items() if plan]))
        participant_id, array, communication_id = leg
        state = plans[leg].pop(0)
        now_ms += 1000 if state == "terminated" else draw(st.sampled_from([1000, 1500, 5000, 60_000]))
        communication = legs.setdefault(leg, {"id": communication_id, "initialState": state})
        communication["state"] = state
        if state == "connected" and "connectedTime" not in communication:
            communication["connectedTime"] = iso(now_ms)
        if state == "parked":
            communication |= {"parkTime": iso(now_ms), "resumeTime": iso(now_ms + 86_400_000)}
        if state == "disconnected":
            communication |= {"disconnectedTime": iso(now_ms), "disconnectType": "peer"}
        if array == "cobrowsesessions":
            communication |= {"providerEventTime": iso(now_ms), "cobrowseSessionId": communication_id}
        truth.setdefault((participant_id, MEDIA[array], communication_id), []).append((state, now_ms))
        participants: dict[str, Json] = {}
        for (owner, kind, _), newest in legs.items():
            participants.setdefault(owner, {"id": owner, "purpose": "agent"}).setdefault(kind, []).append(dict(newest))
        document = websocket(NESTED_TOPICS[0], {"id": conversation_id, "participants": list(participants.values())})
        delay_ms = draw(st.integers(0, 900))
        history.append(make_record(document, seconds=(now_ms + delay_ms - BASE_MS) / 1000, key=conversation_id))
    return LifeStory(tuple(number_offsets(history)), {leg: tuple(story) for leg, story in truth.items()})
