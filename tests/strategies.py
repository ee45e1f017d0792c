"""Hypothesis strategies: records that collide, contradict and repeat each other as much as possible."""

import json
from typing import Any

from hypothesis import strategies as st

from consumer.core.record import Record

BASE_MS = 1_767_261_600_000  # 2026-01-01T10:00:00Z
CONVERSATIONS = ("c-1", "c-2")

_ARRAYS = {
    "calls": "calls",
    "messages": "messages",
    "emails": "emails",
    "cobrowsesessions": "cobrowseSessions",
    "chats": "chats",
}
_STATES = ("alerting", "dialing", "contacting", "connected", "PARKED", "disconnected", "terminated", "vanished", "none")


def iso(ms: int) -> str:
    seconds, milliseconds = divmod(ms - BASE_MS, 1_000)
    minutes, second = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"2026-01-01T{10 + hours:02d}:{minutes:02d}:{second:02d}.{milliseconds:03d}Z"


times_ms = st.integers(0, 40).map(lambda step: BASE_MS + 60_000 + step * 700)
wire_times = st.one_of(
    st.none(),
    times_ms.map(iso),
    times_ms,
    times_ms.map(lambda ms: ms + 0.5),
    times_ms.map(lambda ms: iso(ms)[:-1] + "999+00:00"),
    st.sampled_from(("", "yesterday", "2026-02-30T00:00:00Z", "1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z", -1, 10**30)),
)
names = st.sampled_from(("a", "b"))
maybe_bools = st.sampled_from((None, True, False))


def _object(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_common = {
    "state": st.sampled_from((*_STATES, None, "")),
    "initialState": st.sampled_from(_STATES),
    "provider": names,
    "disconnectType": st.sampled_from(("client", "TRANSFER_CONFERENCE", "new-kind", None)),
    "connectedTime": wire_times,
    "held": maybe_bools,
    "direction": st.sampled_from(("inbound", "OUTBOUND")),
    "parkTime": wire_times,
    "type": st.sampled_from(("sms", "WEBMESSAGING")),
    "muted": maybe_bools,
    "wrapup": st.one_of(st.none(), _object(code=names, durationSeconds=st.integers(-(2**60), 2**60))),
    "cobrowseSessionId": st.sampled_from((None, "", "s1", "s2")),
    "cobrowseRole": st.sampled_from(("sharer", "VIEWER")),
    "controlling": st.one_of(st.none(), st.lists(st.sampled_from(("a", "b", None)), max_size=3)),
    "viewerUrl": st.sampled_from((None, "", "https://viewer.example.test/x")),
    "providerEventTime": wire_times,
}
nested_communications = _object(
    id=st.sampled_from(("m1", "m2", "m3", None, "")),
    disconnectedTime=wire_times,
    peerId=names,
    roomId=names,
    afterCallWorkRequired=maybe_bools,
    afterCallWork=st.one_of(
        st.none(), _object(state=st.sampled_from(("pending", "notApplicable")), startTime=wire_times, endTime=wire_times)
    ),
    unknownField=st.just({"deep": [{}]}),
    **_common,
)
_references = st.one_of(st.none(), _object(id=names))
_participant_ids = st.sampled_from(("p1", "p1", "p2", None, ""))
nested_participants = _object(
    purpose=st.sampled_from(("customer", "AGENT")),
    userId=names,
    queueId=names,
    wrapupRequired=maybe_bools,
    queue=st.just({}),
    **{array: st.one_of(st.none(), st.lists(st.one_of(nested_communications, st.none()), max_size=3)) for array in _ARRAYS},
)
flat_participants = _object(
    purpose=st.sampled_from(("customer", "AGENT")),
    user=_references,
    queue=_references,
    peer=names,
    endTime=wire_times,
    startAcwTime=wire_times,
    endAcwTime=wire_times,
    **_common,
)


@st.composite
def bodies(draw: st.DrawFn, participants: st.SearchStrategy[dict[str, Any]], conversation: str) -> dict[str, Any]:
    shown = draw(st.lists(st.one_of(st.none(), participants, participants, participants), max_size=3))
    for participant in shown:
        if participant is not None:
            participant["id"] = draw(_participant_ids)
    return {"id": conversation, "participants": shown}


@st.composite
def payloads(draw: st.DrawFn, conversation: str, snapshot_ms: int) -> dict[str, Any]:
    array = draw(st.sampled_from((None, None, *_ARRAYS)))
    if array is None:
        body, topic = draw(bodies(nested_participants, conversation)), "v2.users.u-1.conversations"
    else:
        body, topic = draw(bodies(flat_participants, conversation)), f"v2.users.u-1.conversations.{_ARRAYS[array]}"
    notification = {"topicName": topic, "version": "2", "eventBody": body, "metadata": {"CorrelationId": "x"}}
    match draw(st.sampled_from(("websocket", "eventbridge", "bare"))):
        case "websocket":
            return notification
        case "eventbridge":
            stamp = draw(st.sampled_from((None, iso(snapshot_ms), iso(snapshot_ms + 300), "never")))
            return {"id": "event", "detail-type": "x", "detail": {**notification, "timestamp": stamp}}
        case _:
            return body


@st.composite
def values(draw: st.DrawFn, conversation: str = "c-1", snapshot_ms: int = BASE_MS) -> bytes:
    return json.dumps(draw(payloads(conversation, snapshot_ms)), ensure_ascii=False).encode()


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Records of one or two conversations, with offsets in order."""
    records = []
    for offset in range(draw(st.integers(1, 8))):
        conversation = draw(st.sampled_from(CONVERSATIONS))
        snapshot_ms = draw(times_ms)
        value = draw(values(conversation, snapshot_ms))
        records.append(Record("in", 0, offset, snapshot_ms, conversation.encode(), value))
    return records


@st.composite
def damaged_values(draw: st.DrawFn) -> bytes:
    """A valid payload with bytes overwritten, cut out or cut off."""
    value = bytearray(draw(values()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(value) - 1)))
        match draw(st.integers(0, 2)):
            case 0:
                value[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
            case 1:
                del value[at : at + draw(st.integers(1, 40))]
            case _:
                del value[at:]
    return bytes(value)


nesting = st.builds(
    lambda opening, count, tail: opening * count + tail,
    st.sampled_from((b"[", b'{"a":', b'{"eventBody":', b'{"participants":[')),
    st.integers(1, 3_000),
    st.binary(max_size=4),
)
noise = st.one_of(st.none(), st.binary(max_size=200), damaged_values(), nesting)
