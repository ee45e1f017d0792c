"""Mutated records for two engines to differ on.

1. Most mutations keep a record well-formed: another state, time or id, a participant more or less, another medium. A
   native engine accepts many of those, and where it accepts it has to be equal.
2. The others damage it, from a member of another type to a broken byte. There it must not accept what Python rejects.

Everything is drawn from a `random.Random`, so that a seed repeats it. A `Raw` is written as it stands, so that it may
be no JSON.
"""

import json
import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from consumer.core.record import Record
from consumer.core.timestamps import parse as parse_time
from tests.behaviour.test_fuzz import HOSTILE, TOKENS, damage
from tests.engine.documents import parse, write
from tests.engine.traffic import (
    FLAG_NAMES,
    OBJECTS,
    ODD_WORDS,
    OF_CONVERSATION,
    REFERENCES,
    TEXT_NAMES,
    TIME_NAMES,
    WORDS,
    draw_array,
    draw_object,
    draw_state,
    draw_word,
    iso,
    make_wrapup,
)
from tests.strategies import (
    BASE_MS,
    FLAT_SUFFIXES,
    FRAMES,
    MEDIA,
    NESTED_TOPICS,
    OTHER_TOPICS,
    SPELLINGS,
    eventbridge,
    websocket,
)

Json = dict[str, Any]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
WELL_FORMED: Final = 0.8
"""The share of mutated records that stay well-formed."""
ESCAPED: Final = 0.05
"""The share of mutated records that are written with escapes and space, which takes longest."""
FRAMED: Final = 0.04
"""The share of those that are put into a frame."""
RELAYED: Final = 0.25
"""The share of streams that one relay frames."""
RELAYS: Final[tuple[tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]], ...]] = (
    (lambda value: b"\xef\xbb\xbf" + value, lambda key: key),
    (lambda value: b"\0\0\0\xff\x07" + value, lambda key: b"\0\0\0\0\x05" + key),
    (lambda value: b"\0\0\0\0\x07\xef\xbb\xbf" + value, lambda key: b'\0\0\0\0\x05"' + key + b'"'),
    (lambda value: b'{"schema":{"type":"struct"},"payload":' + value + b"}", lambda key: b'"' + key + b'"'),
    (lambda value: b'\xef\xbb\xbf { "schema" : null , "payload" : ' + value + b" }\r\n", lambda key: key),
)
"""How common relays frame values and spell keys: natively processed."""
ODD_FRAMES: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda value: b"\xef\xbb\xbf\xef\xbb\xbf" + value,
    lambda value: b"\xef\xbb\xbf\0\0\0\0\x07" + value,
    lambda value: b"\0" * 11 + value,
    lambda value: b"\0\0\0\0" + value,
    lambda value: b"\xef\xbb" + value,
    lambda value: b" \xef\xbb\xbf" + value,
    lambda value: b'{"payload":' + value + b',"schema":{}}',
    lambda value: b'{"schema":{},"payload":' + value + b',"version":1}',
    lambda value: b'{"schema":{},"schema":1,"payload":' + value + b"}",
    lambda value: b'{"schema":{},"payload":' + value + b',"payload":{}}',
    lambda value: b'{"schema":{},"payload":' + value + b',"participants":[]}',
    lambda value: b'{"schema":{},"payload":{},"topicName":"' + value[:9].hex().encode() + b'"}',
    lambda value: b'{"schema":{},"payload":{"schema":{},"payload":' + value + b"}}",
    lambda value: b'{"schema":{},"payload":' + value + b"}}",
    lambda value: b'{"schema":{},"payload":' + value,
    lambda value: b'{"schema":{,"payload":' + value + b"}",
    lambda value: b'{"schema":{"\\ud800":1},"payload":' + value + b"}",
    lambda value: b'{"schem\\u0061":{},"payload":' + value + b"}",
    lambda value: b'{"schema":' + b"[" * 256 + b"]" * 256 + b',"payload":' + value + b"}",
    lambda value: b'{"schema":{},"payload":' + b"[" + value + b"]}",
)
"""Frames that are nearly those of common relays."""
ODD_SPELLINGS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda key: b'"\\u0063' + key[1:] + b'"',
    lambda key: b' "' + key + b'"',
    lambda key: b'"' + key + b'" ',
    lambda key: b'"' + key,
    lambda key: b'""' + key + b'""',
    lambda key: b'"' + key[:0],
    lambda key: b"\0\0\0\0" + key,
    lambda key: b"\0" * 10 + key,
    lambda key: b'"\0\0\0\0\x05' + key + b'"',
)
"""Spellings that are nearly those of common relays."""
IDS: Final = ("p1", "p2", "p3", "m1", "m2", "m3", "s1", "s2")
ODD_IDS: Final = ("é", "\U0001f600", "x" * 300, 'm"1', "")
TIMES_OFF_MS: Final = (
    0, 0, 1, 500, 1_999, 2_000, 2_001, 5_000, 60_000, 299_999, 300_000, -1, -500, -2_000, -5_000, -HOUR_MS,
)  # fmt: skip
TIMES_FAR_OFF_MS: Final = (300_001, HOUR_MS, 25 * HOUR_MS, 40 * DAY_MS, -40 * DAY_MS)
NUMBERS: Final = (
    "0", "-0", "-1", "1.0", "12.0", "1e3", "1E+3", "1e-3", "12.5", "0.1", "9007199254740993", "18446744073709551615",
    "18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "1e308", "1e309", "-1e-400", "01", "+1", ".5", "5.",
    "1767261600000", "1767261600000.75", "1767261600", "253402300799999", "253402300800000", "NaN", "Infinity",
)  # fmt: skip
ODD_TIMES: Final = (
    "2026-01-01T10:00:00Z", "2026-01-01 10:00:00.123456789+23:59", "2026-02-30T10:00:00Z", "2026-02-29T10:00:00.000Z",
    "2024-02-29T10:00:00.000Z", "2026-01-31T10:00:00.000Z", "2026-01-01", "2026-01-01T10:00Z", "2026-01-01t10:00:00Z",
    "9999-12-31T23:59:59.999Z", "2009-12-31T23:59:59.999Z", "2010-01-01T00:00:00.000Z", "2026-01-01T24:00:00Z",
    "2026-01-01T23:59:60Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-01-01T10:00:00.1Z",
    "2026-01-01T10:00:00.12Z", "2026-01-01T10:00:00.000+00:00", "2026-01-01T10:00:00.000-0130", "2026-01-01T10:00:00",
    "2026-01-01T10:00:00.1234567890Z", " 2026-01-01T10:00:00.000Z", "2026-01-01T10:00:00.000Z\n", "soon", "",
    "٢٠٢٦-01-01T10:00:00.000Z", "2026-00-01T10:00:00.000Z", "2026-01-00T10:00:00.000Z",
)  # fmt: skip
STRINGS: Final = (
    r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0041"', r'"\u0000"', r'"\/"', r'"\b\f\n\r\t\"\\"',
    r'"\x41"', r'"\u12"', r'"\u00E9"', '"\x01"', '"\x7f"', '"a\nb"', r'"\uD83Dx"', r'"x\ude00"',
    '"' + "y" * 70_000 + '"',
)  # fmt: skip
HEADERS: Final[tuple[bytes | None, ...]] = (
    b"", b"soon", b"-1", b"0", b"1767261600", b" 1767261600000", b"9" * 15, b"9" * 16, b"\xff", None, "٣".encode(),
    b"1767261600000", b"0001767261600000",
)  # fmt: skip
RENAMES: Final[tuple[Callable[[str], str], ...]] = (
    str.upper, str.lower, str.title, lambda name: name + "_", lambda name: "x" + name, lambda name: name[:-1],
    lambda name: name.replace("T", "t"),
)  # fmt: skip
USED_NAMES: Final = (
    *TIME_NAMES, *TEXT_NAMES, *FLAG_NAMES, *REFERENCES, "state", "state", "state", "cobrowseSessionId", "controlling",
    "wrapup", "afterCallWork", *OBJECTS,
)  # fmt: skip
UNUSED: Final = frozenset(("attributes", "metadata", "name", "address"))

ODD_TOKENS: Final = (*TOKENS, *(number.encode() for number in NUMBERS), *(text.encode() for text in STRINGS))
HOSTILE_VALUES: Final = tuple(
    Raw(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) for value in HOSTILE
)


class Source:
    """A stream of records of one partition; `mutated` is the share of records that are mutated."""

    def __init__(self, chance: random.Random, ordinary: Sequence[Record], mutated: float) -> None:
        self._chance = chance
        self._mutated = mutated
        self._ordinary = ordinary
        self._relay = chance.choice(RELAYS) if chance.random() < RELAYED else None
        self._left = iter(ordinary)

    def draw(self, count: int) -> list[Record]:
        """The next records, as they would be in order."""
        drawn = [
            self._mutate(record) if self._chance.random() < self._mutated else record
            for record in islice(self._left, count)
        ]
        return [self._relayed(record) for record in drawn]

    def _relayed(self, record: Record) -> Record:
        """A record as the relay of the stream writes it, but for a few."""
        if self._relay is None or record.value is None or self._chance.random() < 0.02:
            return record
        frame, spell = self._relay
        return replace(record, value=frame(record.value), key=record.key and spell(record.key))

    def _mutate(self, record: Record) -> Record:
        draw = self._chance.random()
        try:
            if draw < WELL_FORMED:
                varied = self._vary(record)
                return self._frame(varied) if self._chance.random() < FRAMED else varied
            if draw < WELL_FORMED + 0.06:
                return self._damage_around(record)
            if draw < WELL_FORMED + 0.15:
                return self._damage(record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        return replace(record, value=damage(self._chance, record.value or b"null"))

    def _write(self, document: Any) -> bytes:
        value = msgspec.json.encode(document)
        if self._chance.random() < ESCAPED:
            try:
                return write(parse(value), self._chance)
            except (ValueError, RecursionError):
                pass
        return value

    def _draw_id(self) -> str:
        """An id that others have as well, seldom an odd one."""
        return self._chance.choice(IDS if self._chance.random() < 0.98 else ODD_IDS)

    def _borrow(self) -> Record:
        """Another record, of any time."""
        return self._chance.choice(self._ordinary)

    # --- Mutations after which a record is well-formed.

    def _frame(self, record: Record) -> Record:
        """A record as another relay would write it."""
        chance = self._chance
        value = chance.choice((*FRAMES, *ODD_FRAMES))(record.value or b"null")
        spell = chance.choice((*SPELLINGS, *ODD_SPELLINGS))
        key = spell(record.key) if record.key and chance.random() < 0.3 else record.key
        return replace(record, key=key, value=chance.choice(FRAMES)(value) if chance.random() < 0.2 else value)

    def _vary(self, record: Record) -> Record:
        chance = self._chance
        draw = chance.random()
        if draw < 0.06:
            moved_ms = record.timestamp_ms + chance.choice((*TIMES_OFF_MS, DAY_MS, -DAY_MS, HOUR_MS))
            return replace(record, timestamp_ms=max(0, moved_ms))
        if draw < 0.1:  # an old value in a new record
            other = self._borrow()
            return replace(record, key=other.key, value=other.value)
        document = msgspec.json.decode(record.value or b"null")
        body = _find_body(document)
        if draw < 0.14:
            return replace(record, value=self._write(self._wrap(body)))
        participants = _find_participants(body)
        if draw < 0.18 and isinstance(body, dict):  # another conversation's
            record = replace(record, key=self._borrow().key)
            body["id"] = (record.key or b"").decode()
        for _ in range(chance.choice((1, 1, 2, 3, 6))):
            draw = chance.random()
            if draw < 0.05 and isinstance(body, dict):
                name = chance.choice(OF_CONVERSATION)
                body[name] = self._another(name, body, record.timestamp_ms)
                continue
            if draw < 0.2 or not participants:
                self._vary_participants(participants)
                continue
            participant = chance.choice(participants)
            arrays = [name for name in participant if name in MEDIA and participant[name]]
            if arrays and draw < 0.45:
                self._vary_communications(participant, chance.choice(arrays), participants)
            elif arrays and draw < 0.9:
                self._vary_member(chance.choice(participant[chance.choice(arrays)]), record.timestamp_ms)
            else:
                self._vary_member(participant, record.timestamp_ms)
        return replace(record, value=self._write(document))

    def _wrap(self, body: Any) -> Any:
        """A body in another envelope that suits its shape."""
        chance = self._chance
        participants = _find_participants(body)
        is_flat = bool(participants) and not any(MEDIA.keys() & participant.keys() for participant in participants)
        topic = f"v2.users.u1.conversations.{chance.choice(FLAT_SUFFIXES)}" if is_flat else chance.choice(NESTED_TOPICS)
        match chance.randrange(2 if is_flat else 4):
            case 0:
                return websocket(topic, body)
            case 1:
                return eventbridge(topic, body, chance.choice((iso(BASE_MS + HOUR_MS), BASE_MS + 1, None)))
            case 2:
                return {"eventBody": body}
            case _:
                return body

    def _vary_participants(self, participants: list[Json]) -> None:
        chance = self._chance
        match chance.randrange(7) if participants else 6:
            case 0:
                chance.shuffle(participants)
            case 1:
                del participants[chance.randrange(len(participants))]
            case 2:  # another one in the same state
                taken = chance.choice(participants)
                if taken.get("id") in IDS:
                    participants.append({**taken, "id": self._draw_id()})
                else:
                    participants.append({**taken, "id": f"{taken.get('id')}-2"})
            case 3:
                chance.choice(participants)["id"] = self._draw_id()
            case 4:
                one, other = chance.choice(participants), chance.choice(participants)
                one["id"], other["id"] = other.get("id"), one.get("id")
            case 5:
                at = chance.randrange(len(participants))
                participants[at] = self._shuffle_members(participants[at])
            case _:
                others = _find_participants(_find_body(msgspec.json.decode(self._borrow().value or b"null")))
                participants += chance.sample(others, min(1, len(others)))

    def _vary_communications(self, participant: Json, array: str, participants: list[Json]) -> None:
        chance = self._chance
        communications: list[Json] = participant[array]
        one = chance.choice(communications)
        match chance.randrange(7):
            case 0:
                chance.shuffle(communications)
            case 1:
                communications.remove(one)
            case 2:
                communications.append({**one, "id": self._draw_id()})
            case 3:
                one["id"] = self._draw_id()
            case 4:
                participant[draw_array(chance)] = participant.pop(array)
            case 5:
                chance.choice(participants).setdefault(array, []).append(one)
                communications.remove(one)
            case _:
                communications[communications.index(one)] = self._shuffle_members(one)

    def _shuffle_members(self, members: Json) -> Json:
        names = list(members)
        self._chance.shuffle(names)
        return {name: members[name] for name in names}

    def _vary_member(self, owner: Json, near_ms: int) -> None:
        chance = self._chance
        draw = chance.random()
        if draw < 0.1 and len(owner) > 2:
            del owner[chance.choice([name for name in owner if name != "id"])]
            return
        name = chance.choice(list(owner)) if draw < 0.5 else chance.choice(USED_NAMES)
        if name != "id" and name not in MEDIA:
            owner[name] = self._another(name, owner, near_ms)

    def _another(self, name: str, owner: Json, near_ms: int) -> Any:
        """Another value of the type that a member has."""
        chance = self._chance
        if chance.random() < 0.05:
            return None
        match name:
            case "state" | "initialState":
                return draw_state(chance)
            case "cobrowseSessionId" | "roomId":
                return self._draw_id()
            case _ if name in FLAG_NAMES:
                return chance.random() < 0.5
            case _ if name in TIME_NAMES:
                return self._time(owner, near_ms)
            case _ if name in TEXT_NAMES:
                return draw_word(chance)
            case _:
                return self._another_object(name, owner, near_ms)

    def _another_object(self, name: str, owner: Json, near_ms: int) -> Any:
        chance = self._chance
        match name:
            case "controlling":
                return chance.choices(IDS, k=chance.randrange(4))
            case "wrapup":
                return make_wrapup(chance)
            case "afterCallWork":
                times = {name: self._time(owner, near_ms) for name in ("startTime", "endTime")}
                return {"state": draw_word(chance), **times}
            case _ if name in OBJECTS:
                return draw_object(chance, name)
            case _ if name in REFERENCES:
                return {"id": draw_word(chance), "name": "x"}
            case _:
                return chance.choice(HOSTILE_VALUES)  # no engine uses it

    def _time(self, owner: Json, near_ms: int) -> Any:
        """A time near one, or near another time of the same owner; seldom far off."""
        chance = self._chance
        draw = chance.random()
        times = [value for name, value in owner.items() if name in TIME_NAMES and isinstance(value, str)]
        if times and draw < 0.4:
            near_ms = parse_time(chance.choice(times)) or near_ms
        offs = TIMES_OFF_MS if draw < 0.97 else TIMES_FAR_OFF_MS
        time_ms = max(BASE_MS, near_ms) + chance.choice(offs)
        return time_ms if draw < 0.1 else iso(time_ms)

    # --- Mutations that damage a record.

    def _damage_around(self, record: Record) -> Record:
        """Change what is around the value, or its envelope."""
        chance = self._chance
        match chance.randrange(7):
            case 0:
                return replace(
                    record, key=chance.choice((None, b"", b"other", b"\xff\xfe", b"c1", b"c2", "é".encode()))
                )
            case 1:
                return replace(record, value=None)
            case 2:
                stamps = (-1, 0, 1_767_261_600, 253_402_300_799_999, 253_402_300_800_000, 1_262_303_999_999)
                off = chance.choice((DAY_MS, -DAY_MS, HOUR_MS, -40 * DAY_MS, 40 * DAY_MS, 1))
                moved = max(0, record.timestamp_ms + off)
                return replace(record, timestamp_ms=chance.choice((*stamps, moved, moved, moved)))
            case 3:
                near_ms = record.timestamp_ms + chance.choice((*TIMES_OFF_MS, *TIMES_FAR_OFF_MS))
                text = chance.choice((*HEADERS, str(near_ms).encode()))
                name = chance.choice(("snapshot-time", "snapshot-time", "Snapshot-Time", "cc-redrives"))
                return replace(record, headers=(*record.headers, (name, text)) * chance.choice((1, 1, 2)))
            case 4:
                return replace(record, value=self._borrow().value)
            case 5:
                document = msgspec.json.decode(record.value or b"{}")
                for participant in _find_participants(_find_body(document)):
                    participant["id"] = chance.choice((None, ""))
                return replace(record, value=self._write(document))
            case _:
                document = msgspec.json.decode(record.value or b"{}")
                return replace(record, value=self._write(self._wrap_oddly(_find_body(document))))

    def _wrap_oddly(self, body: Any) -> Any:
        """A body in any other envelope, or as a body of another topic."""
        chance = self._chance
        flat = f"v2.users.u1.conversations.{chance.choice(FLAT_SUFFIXES)}"
        topic = chance.choice((*NESTED_TOPICS, *OTHER_TOPICS, flat, "", None, "v2.users.é.conversations"))
        match chance.randrange(6):
            case 0:
                return websocket(topic or "", body)
            case 1:
                return eventbridge(topic or "", body, chance.choice((*ODD_TIMES, BASE_MS, None)))
            case 2:
                return body
            case 3:
                return {"eventBody": body}
            case 4:
                return {"topicName": topic, "eventBody": body, "detail": chance.choice((None, {}, body))}
            case _:
                return {"detail-type": topic, "detail": {"eventBody": body}, "id": "c1"}

    def _damage(self, record: Record) -> Record:
        """Change values anywhere."""
        document = [msgspec.json.decode(record.value or b"null")]
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            self._damage_value(document)
        return replace(record, value=self._write(document[0]))

    def _damage_value(self, document: list[Any]) -> None:
        chance = self._chance
        parent, at = self._pick(document)
        value = parent[at]
        match chance.randrange(12):
            case 0:
                del parent[at]
                if not document:
                    document.append(None)
            case 1 | 2 if isinstance(value, dict):
                parent[at] = self._with_member(value)
            case 1 if isinstance(value, list):
                value.insert(chance.randrange(len(value) + 1), chance.choice((*HOSTILE_VALUES, *value)))
            case 3 if isinstance(value, dict) and value:
                parent[at] = {chance.choice(RENAMES)(name): inner for name, inner in value.items()}
            case 4:
                parent[at] = _of_other_type(value)
            case _:
                parent[at] = self._other(at if isinstance(at, str) else "", value)

    def _pick(self, document: list[Any]) -> tuple[Any, Any]:
        """A place of a value: its list or object, and its index or name there."""
        chance = self._chance
        parent: Any = document
        at: Any = 0
        while isinstance(parent[at], dict | list) and parent[at] and (parent is document or chance.random() < 0.9):
            parent = parent[at]
            at = self._pick_within(parent)
            if at in UNUSED and chance.random() < 0.8:
                at = self._pick_within(parent)
        return parent, at

    def _pick_within(self, parent: Any) -> Any:
        chance = self._chance
        places = list(parent) if isinstance(parent, dict) else range(len(parent))
        deeper = [at for at in places if isinstance(parent[at], dict | list)]
        return chance.choice(deeper if deeper and chance.random() < 0.6 else places)

    def _with_member(self, members: Json) -> Raw:
        """An object with one member more: one that it has, the same or otherwise, or an unknown one."""
        chance = self._chance
        pairs = list(members.items())
        name, value = chance.choice(pairs) if pairs and chance.random() < 0.7 else (chance.choice(TEXT_NAMES), "y")
        again = chance.choice((value, value, None, chance.choice(HOSTILE_VALUES)))
        pairs.insert(chance.randrange(len(pairs) + 1), (name, again))
        written = (msgspec.json.encode(name) + b":" + msgspec.json.encode(value) for name, value in pairs)
        return Raw(b"{" + b",".join(written) + b"}")

    def _other(self, name: str, value: Any) -> Any:
        """Another value, valid at this place or not."""
        chance = self._chance
        if chance.random() < 0.6:
            depth = chance.choice((2, 60, 250, 256, 257, 400))
            opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
            deep = opening * depth + b"1" + closing * depth
            return chance.choice((None, chance.choice(HOSTILE_VALUES), Raw(chance.choice(ODD_TOKENS)), Raw(deep)))
        match value:
            case _ if name.endswith("Time") or name == "timestamp":
                moved = BASE_MS + chance.choice((*TIMES_OFF_MS, *TIMES_FAR_OFF_MS))
                return chance.choice((*ODD_TIMES, iso(moved), moved, float(moved), moved + 0.5))
            case _ if name in ("topicName", "detail-type"):
                flat = f"v2.users.u1.conversations.{chance.choice(FLAT_SUFFIXES)}"
                return chance.choice((*NESTED_TOPICS, *OTHER_TOPICS, flat))
            case bool():
                return not value
            case int():
                return value + chance.choice((-1, 1, 2**31, 2**53))
            case _:
                return chance.choice((*WORDS, *ODD_WORDS, *IDS, *ODD_IDS))


def _find_body(document: Any) -> Any:
    """The body in an envelope, or what is there instead."""
    for names in (("detail", "eventBody"), ("eventBody",)):
        inner = document
        for name in names:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if inner is not None:
            return inner
    return document


def _find_participants(body: Any) -> list[Json]:
    participants = body.get("participants") if isinstance(body, dict) else None
    return participants if isinstance(participants, list) else []


def _of_other_type(value: Any) -> Any:
    """The same as another type of JSON, as a lenient decoder would take it."""
    match value:
        case Raw():
            return [value]
        case dict():
            return list(value.values())
        case list():
            return {str(at): inner for at, inner in enumerate(value)}
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str() if value.isascii() and value.isdigit():
            return int(value)
        case None:
            return {}
        case _:
            return [value]
