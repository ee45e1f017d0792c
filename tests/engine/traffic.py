"""Ordinary records for two engines: both shapes, all media, drawn from a seed."""

import json
import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records
from tests.strategies import (
    BASE_MS,
    BEFORE,
    ENDED,
    FLAT_SUFFIXES,
    LIVE,
    MEDIA,
    NESTED_TOPICS,
    TOPIC,
    eventbridge,
    websocket,
)
from tests.strategies import iso as uncached_iso

STATES: Final = (*BEFORE, *LIVE, *ENDED, "vanished", "Alerting", "CONNECTED", "new.state", "")
WORDS: Final = ("a", "b", "A_b", "", None, "client", "peer", "TRANSFER", "inbound", "sms")
ODD_WORDS: Final = ("é", "É", "\U0001f600", "�", "ǅ", "a\u0000b", 'a"b', "x" * 256, "é" * 256, "x" * 257, "é" * 257)
"""Words of which the case is not always folded natively, and words of the length that is kept and longer."""
TIME_NAMES: Final = (
    "connectedTime", "disconnectedTime", "parkTime", "resumeTime", "providerEventTime", "endTime", "startAcwTime",
    "endAcwTime", "callbackScheduledTime", "startTime", "startHoldTime", "startAlertingTime",
)  # fmt: skip
TEXT_NAMES: Final = (
    "initialState", "provider", "disconnectType", "direction", "peerId", "peer", "type", "roomId", "cobrowseRole",
    "purpose", "userId", "queueId", "teamId", "externalContactId", "viewerUrl", "scriptId", "groupId",
    "consultParticipantId", "monitoredParticipantId", "coachedParticipantId", "bargedParticipantId", "externalTag",
)  # fmt: skip
FLAG_NAMES: Final = ("held", "muted", "afterCallWorkRequired", "wrapupRequired")
REFERENCES: Final = ("user", "queue", "team", "externalContact", "group")
OBJECTS: Final[dict[str, tuple[Any, ...]]] = {
    "errorInfo": (None, {}, {"code": "error.x", "message": "m"}, {"code": ""}, {"code": "x" * 257}),
    "self": (None, {}, {"addressNormalized": "a", "name": "n"}, {"addressNormalized": "", "addressRaw": "b"}, "x"),
    "disconnectReasons": (
        None, [], [{"type": "q850", "code": 16}, None, {"type": "SIP", "code": 486}], [{"type": "sip", "code": 12.0}],
        [{"code": 1}, {"type": "q850"}], [{"type": "sip", "code": 2**53 + 1}], [None] * 101,
    ),
    "conversationRoutingData": (
        None, {}, {"queue": {"id": "q"}, "language": {"id": "l"}, "priority": 3, "skills": [{"id": "b"}, {"id": "a"}]},
        {"language": {}, "priority": None, "skills": []}, {"skills": [None, {}]}, {"priority": 2.5},
        {"skills": [{"id": "a"}] * 101},
    ),
    "divisions": (
        None, [], [{"division": {"id": "d2"}}, {"division": {"id": "d1"}}],
        [{"division": {"id": "d1"}, "entities": []}], [None, {}, {"division": None}], [{"division": "d1"}],
    ),
    "recentTransfers": (
        None, [], [None, {}, {"id": ""}],
        [{"id": "t2", "state": "active", "transferType": "attended"}, {"id": "t1", "dateIssued": BASE_MS + 9}],
        [{"id": "t1", "state": "COMPLETE", "dateIssued": BASE_MS, "initiator": {"userId": "u"}, "destination": {}}] * 2,
        [{"id": "t1", "dateIssued": "soon"}], [{"id": 't"1', "destination": {"userId": "u", "address": "a"}}],
        [{"id": "t1"}] * 101,
    ),
}  # fmt: skip
"""Properties that are objects or lists, and some of their values."""
OF_CONVERSATION: Final = ("externalTag", "divisions", "recentTransfers")


iso = lru_cache(maxsize=100_000)(uncached_iso)


class Ordinary(Struct, frozen=True):
    """Records of one partition in order, and what they are like."""

    records: list[Record]
    is_small: bool
    """Whether their values are small, from small alphabets."""
    spread_ms: int
    """How far their times lie apart, if they are small."""


@lru_cache(maxsize=1)
def make_traffic(seed: int, count: int) -> Ordinary:
    """So many ordinary records. The last are kept for the next call: they cost more to make than to mutate."""
    chance = random.Random(seed)
    is_small = chance.random() < 0.6
    spread_ms = chance.choice((2_000, 60_000, 3_600_000))
    conversations = chance.choice((4, 20, 60))
    endless = _small(chance, conversations, spread_ms) if is_small else _simulated(seed, chance, conversations)
    return Ordinary(list(islice(endless, count)), is_small, spread_ms)


def draw_array(chance: random.Random) -> str:
    """An array of communications; one of four is of the medium with most rules."""
    return "cobrowsesessions" if chance.random() < 0.25 else chance.choice(tuple(MEDIA))


def draw_state(chance: random.Random) -> str:
    """A state, seldom an odd one."""
    return chance.choice(STATES if chance.random() < 0.99 else ODD_WORDS)


def draw_word(chance: random.Random) -> str | None:
    """A text or none, seldom an odd one."""
    return chance.choice(WORDS if chance.random() < 0.99 else ODD_WORDS)


def _simulated(seed: int, chance: random.Random, conversations: int) -> Iterator[Record]:
    """The simulator's traffic, of real size."""
    traffic = Traffic(
        seed=seed,
        start_ms=BASE_MS,
        conversations=conversations,
        records_per_s=chance.choice((20.0, 500.0)),
        disorder=chance.choice((0.0, 0.3)),
        duplicates=chance.choice((0.0, 0.2)),
        broken=0.01,
        flat=chance.choice((0.0, 0.3, 1.0)),
        ignorable=0.01,
    )
    for offset, draft in enumerate(records(traffic)):
        yield Record(TOPIC, 0, offset, draft.timestamp_ms, draft.key, draft.value, draft.headers)


def _small(chance: random.Random, conversations: int, spread_ms: int) -> Iterator[Record]:
    """Small records from small alphabets, so that ids collide, times tie and records contradict each other."""
    offset, now_ms = 0, BASE_MS
    while True:
        now_ms += chance.choice((0, 1, 1_000, spread_ms // 10, spread_ms))
        conversation_id = f"c{chance.randrange(conversations)}"
        at_ms = max(0, now_ms - chance.choice((0, 0, 0, 1, 1_000, spread_ms)))
        is_flat = chance.random() < 0.35
        array = draw_array(chance)
        suffix = chance.choice((*FLAT_SUFFIXES, "cobrowseSessions", "cobrowseSessions"))
        participants = [
            _flat_participant(chance, participant_id, at_ms)
            if is_flat
            else _nested_participant(chance, participant_id, array, at_ms)
            for participant_id in _ids(chance, "p", chance.choice((1, 1, 1, 2, 3)))
        ]
        body = {"id": conversation_id, "participants": participants} | _of_conversation(chance)
        topic = f"v2.users.u1.conversations.{suffix}" if is_flat else chance.choice(NESTED_TOPICS)
        frame: Any = websocket(topic, body)
        draw = chance.random()
        if draw < 0.3:
            frame = eventbridge(topic, body, chance.choice((iso(at_ms), at_ms, None)))
        elif draw < 0.45 and not is_flat:
            frame = chance.choice((body, {"eventBody": body}))
        value = json.dumps(frame, ensure_ascii=False).encode()
        yield Record(TOPIC, 0, offset, at_ms, conversation_id.encode(), value)
        offset += 1


def draw_object(chance: random.Random, name: str) -> Any:
    """A value of a property that is an object or a list; one in four is odd."""
    values = OBJECTS[name]
    return chance.choice(values if chance.random() < 0.25 else values[:3])


def _of_conversation(chance: random.Random) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name in OF_CONVERSATION:
        if chance.random() < 0.2:
            members[name] = draw_word(chance) if name not in OBJECTS else draw_object(chance, name)
    return members


def _ids(chance: random.Random, kind: str, count: int) -> list[str]:
    """Ids of one kind, seldom one of them twice."""
    drawn = chance.choices(range(1, 4), k=count) if chance.random() < 0.05 else chance.sample(range(1, 4), count)
    return [f"{kind}{number}" for number in drawn]


def _nested_participant(chance: random.Random, participant_id: str, array: str, at_ms: int) -> dict[str, Any]:
    participant: dict[str, Any] = {"id": participant_id}
    names = ("purpose", "userId", "queueId", "teamId", "externalContactId", "groupId", "consultParticipantId")
    participant |= {name: draw_word(chance) for name in chance.sample(names, 2)}
    if chance.random() < 0.2:
        participant |= {"startAcwTime": iso(at_ms), "endAcwTime": chance.choice((None, iso(at_ms + 9)))}
    if chance.random() < 0.2:
        participant["wrapup"] = make_wrapup(chance)
    if chance.random() < 0.2:
        participant["conversationRoutingData"] = draw_object(chance, "conversationRoutingData")
    for name in dict.fromkeys((array, *chance.sample(tuple(MEDIA), chance.choice((0, 0, 1, 2))))):
        ids = _ids(chance, "m", chance.choice((1, 1, 2, 3)))
        participant[name] = [_communication(chance, communication_id, at_ms) for communication_id in ids]
    return participant


def _communication(chance: random.Random, communication_id: str, at_ms: int) -> dict[str, Any]:
    communication: dict[str, Any] = {
        "id": communication_id,
        "state": chance.choice(("alerting", "connected", "connected", "parked", "disconnected", draw_state(chance))),
    }
    communication |= _members(chance, at_ms)
    if chance.random() < 0.2:
        communication["afterCallWork"] = {
            "state": draw_word(chance), "startTime": iso(at_ms), "endTime": chance.choice((None, iso(at_ms + 9)))
        }  # fmt: skip
    return communication


def _flat_participant(chance: random.Random, participant_id: str, at_ms: int) -> dict[str, Any]:
    participant: dict[str, Any] = {
        "id": participant_id,
        "state": chance.choice(("alerting", "connected", "connected", "parked", "disconnected", draw_state(chance))),
    }
    for name in chance.sample(REFERENCES, 2):
        participant[name] = chance.choice((None, {}, {"id": "a"}, {"id": "b", "name": "x"}, {"id": ""}))
    return participant | _members(chance, at_ms)


def _members(chance: random.Random, at_ms: int) -> dict[str, Any]:
    """What both shapes have, some of it."""
    members: dict[str, Any] = {}
    for name in chance.sample(TIME_NAMES, chance.choice((0, 1, 2, 3))):
        earlier = iso(at_ms - chance.choice((1, 1_000, 2_000, 2_001)))  # two seconds apart is the same event
        members[name] = chance.choice(
            (iso(at_ms), iso(at_ms), earlier, iso(at_ms + 299_999), at_ms, None, iso(BASE_MS))
        )
    for name in chance.sample(TEXT_NAMES, chance.choice((0, 1, 2, 4))):
        members[name] = draw_word(chance)
    for name in chance.sample(FLAG_NAMES, chance.choice((0, 0, 1, 2))):
        members[name] = chance.choice((True, False, None))
    if chance.random() < 0.3:
        members["cobrowseSessionId"] = chance.choice(("s1", "s2", None, ""))
        members["controlling"] = chance.choice((None, [], ["m2"], ["m1", None, "m3"]))
    if chance.random() < 0.2:
        members["wrapup"] = make_wrapup(chance)
    for name in ("errorInfo", "self", "disconnectReasons"):
        if chance.random() < 0.1:
            members[name] = draw_object(chance, name)
    return members


def make_wrapup(chance: random.Random) -> Any:
    """A wrap-up, most of them with a whole number of seconds."""
    seconds = chance.choice((0, 9, 60, 300, -1, 2**53, 12.0, None))
    return chance.choice((None, {}, {"code": draw_word(chance), "durationSeconds": seconds}))
