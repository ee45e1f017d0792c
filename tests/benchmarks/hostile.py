"""The records that hold the event loop longest: `python -m tests.benchmarks.hostile [--seconds 60] [--seed N]`.

A record is drawn by a few choices - how many participants and communications, which of them are the same, what is known
of them, and with what the rest is filled up to the largest size that is read - and those that cost most are varied
further. What counts is the longest time that the engine keeps for itself: a long record is processed in stages, and
between them the loop has its turn. No broker is needed.

The figures are CPU time of this machine. Beside them stands which part it is of the time to walk through as much
ordinary JSON, which can be compared between machines, and between busy and quiet ones.
"""

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from consumer.core import normalize, timestamps
from consumer.core.envelope import LONG_BYTES
from consumer.core.framing import SNAPSHOTS_MAX
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.choice import EngineClass, import_native
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import Engine
from consumer.engine.python import EngineOptions, PythonEngine
from tests.benchmarks import calibration
from tests.strategies import BASE_MS, iso

RULES = Rules()
SIZE_MAX = RULES.record_bytes_max
PROMISED_MS = 50.0
_ROUNDS = 3
_ROUNDS_OF_WORST = 9
"""The worst are timed again: what else runs on the machine slows the CPU as well, at times."""


def _text(unit: bytes) -> Callable[[int], bytes]:
    return lambda room: b'"' + unit * max(0, (room - 2) // len(unit)) + b'"'


def _make_list_of(unit: bytes) -> Callable[[int], bytes]:
    def make(room: int) -> bytes:
        return b"[" + b",".join([unit] * max(0, (room - 1) // (len(unit) + 1))) + b"]"

    return make


def _members(name: bytes) -> Callable[[int], bytes]:
    return lambda room: b"{" + b",".join([b'"' + name + b'":0'] * max(0, (room - 1) // (len(name) + 5))) + b"}"


def _make_numbered(room: int) -> bytes:
    return b"[" + b",".join([b'"%016d"' % (index * 7_919 % 999_983) for index in range(max(0, room // 19))]) + b"]"


_NEST = b"[" * 200 + b"]" * 200
FILLINGS: dict[str, Callable[[int], bytes]] = {
    "text": _text(b"x"),
    "wide text": _text("\u00c9".encode()),
    "control characters": _text(rb"\u0001"),
    "brackets in a text": _text(b"["),
    "quotes in a text": _text(rb"\""),
    "backslashes in a text": _text(rb"\\"),
    "no escapes in a text": _text(rb"\\u"),
    "escaped letters": _text(rb"\u00c9"),
    "pairs of surrogates": _text(rb"\ud83d\ude00"),
    "halves of characters": _text(rb"\ud83d"),
    "sparse halves": _text(rb"\ud83d" + b"x" * 300),
    "halves among quotes": _text(rb"\ud83d" + rb"\"" * 128),
    "halves among backslashes": _text(rb"\ud83d" + rb"\\ud" * 64),
    "texts": _make_list_of(b'""'),
    "bracket texts": _make_list_of(b'"["'),
    "long bracket texts": _make_list_of(b'"' + b"[" * 60 + b'"'),
    "texts of quotes": _make_list_of(b'"' + rb"\"" * 500 + b'"'),
    "texts of quotes and brackets": _make_list_of(b'"' + rb"\"[" * 20 + b'"'),
    "numbered texts": _make_numbered,
    "nothings": _make_list_of(b"null"),
    "numbers": _make_list_of(b"1.5e9"),
    "long numbers": _make_list_of(b"1." + b"9" * 2_000),
    "pairs": _make_list_of(b"[]"),
    "objects": _make_list_of(b"{}"),
    "nests": _make_list_of(_NEST),
    "sparse nests": _make_list_of(_NEST + b"," + b'"' + b"x" * 4_000 + b'"'),
    "chains": lambda room: b"[" * room,
    "broken chains": lambda room: b"[1," * (room // 3),
    "members": _members(b"ab"),
    "digits": lambda room: b"9" * room,
    "quotes": lambda room: b'"' * room,
    "backslashes": lambda room: b'"' + b"\\" * (room - 1),
}
TOPICS = {
    "nested": "v2.users.u.conversations",
    "flat call": "v2.users.u.conversations.calls",
    "flat co-browse": "v2.users.u.conversations.cobrowsesessions",
    "other": "v2.detail.events.conversation.u.acd.start",
    "none": "",
}


def _quote(value: bytes) -> bytes:
    return json.dumps(value.decode(), ensure_ascii=False).encode()


def _frame(before: bytes, write: Callable[[bytes], bytes] = bytes, after: bytes = b"}") -> Callable[[bytes], bytes]:
    return lambda value: before + write(value) + after


_connect = _frame(b'{"schema":null,"payload":')
_sns = _frame(b'{"Type":"Notification","Message":', _quote)
_sqs = _frame(b'{"MessageId":"m","Body":', _quote)
FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "byte order mark": _frame(b"\xef\xbb\xbf", after=b""),
    "schema id": _frame(b"\0\0\0\0\1", after=b""),
    "Connect": _connect,
    "Connect four times": lambda value: _connect(_connect(_connect(_connect(value)))),
    "CloudEvents": _frame(b'{"specversion":"1.0","data":'),
    "CloudEvents in base64": _frame(b'{"specversion":"1.0","data_base64":"', base64.b64encode, b'"}'),
    "SNS": _sns,
    "SNS in SQS": lambda value: _sqs(_sns(value)),
    "text": _quote,
    "text twice": lambda value: _quote(_quote(value)),
    "array": _frame(b"[", after=b"]"),
    "array of many": _frame(b"[", lambda value: b",".join([value] * SNAPSHOTS_MAX), b"]"),
    "lines": lambda value: b"\n".join([value] * SNAPSHOTS_MAX),
    "Connect's array of many": lambda value: _connect(b"[" + b",".join([value] * SNAPSHOTS_MAX) + b"]"),
}
NAMES = (
    "zz", "id", "purpose", "state", "calls", "cobrowsesessions", "messages", "controlling", "connectedTime", "wrapup",
    "cobrowseSessionId", "participants", "topicName",
)  # fmt: skip
"""Where the filling may stand: some name that is not read, or one that is."""


class Choices(Struct, frozen=True):
    """What a record is like."""

    filling: str
    name: str = "zz"
    where: str = "body"
    topic: str = "nested"
    participants: int = 1
    communications: int = 1
    same_participant: bool = False
    same_communication: bool = False
    array: str = "cobrowsesessions"
    deep: bool = False
    half: str = ""
    """Where half a character stands: `first` or `last`."""
    envelope: str = "WebSocket"
    wrong: bool = False
    """Whether the last property has a type that is not expected, in an envelope that does not use it."""
    contradicts: bool = False
    """Whether the conversation has as many parks as may be known, and a state is shown from before them all."""
    frame: str = "none"
    size: int = SIZE_MAX

    def value(self) -> bytes:
        """The value of such a record, of about that size and no larger if there is room for what is known."""
        write, room = FRAMES[self.frame], self.size
        value = write(self._content(room))
        while len(value) > self.size and room > 1_000:
            room = room * self.size // len(value) - 200
            value = write(self._content(room))
        return value

    def _content(self, size: int) -> bytes:
        people = [self._participant(number) for number in range(self.participants)]
        if self.contradicts:
            people.insert(0, _show_parked({"state": "alerting"}))
        body: dict[str, Any] = {"id": "c1", "participants": people}
        document = self._document(body)
        half = {"half": "\ud83d"}
        if self.half == "first":
            document = half | document
        if self.deep:
            body["deep"] = json.loads(b"[" + b",".join([b"[[]]"] * 200) + b"]")
        place = document if self.where == "document" else body if self.where == "body" or not people else people[-1]
        if self.where == "communication" and people and people[-1].get(self.array):
            place = people[-1][self.array][-1]
        place[self.name] = "?filling?"
        if self.half == "last":
            document |= half
        if self.wrong:
            document["eventBody" if self.envelope == "EventBridge" else "detail"] = 5
        before, _, after = json.dumps(document, separators=(",", ":")).encode().partition(b'"?filling?"')
        return before + FILLINGS[self.filling](size - len(before) - len(after)) + after

    def _document(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"topicName": TOPICS[self.topic], "eventBody": body}
        if self.envelope == "EventBridge":
            return {"detail-type": "t", "detail": message}
        return message if self.topic != "none" else body

    def _participant(self, number: int) -> dict[str, Any]:
        who: dict[str, Any] = {"id": "p1" if self.same_participant else f"p{number}", "userId": f"u{number}"}
        legs = [self._communication(number * self.communications + index) for index in range(self.communications)]
        if self.topic.startswith("flat"):
            return who | (legs[0] if legs else {})
        return who | {self.array: legs}

    def _communication(self, number: int) -> dict[str, Any]:
        return {
            "id": "m1" if self.same_communication else f"m{number}",
            "state": ("connected", "parked", "terminated", f"s{number}")[number % 4],
            "connectedTime": iso(BASE_MS - 9_000 * number - 5_000),
            "parkTime": iso(BASE_MS - 9_000 * number - 4_000),
            "disconnectedTime": iso(BASE_MS - 9_000 * number - 3_000),
            "providerEventTime": iso(BASE_MS - 9_000 * number - 2_000),
            "disconnectType": "peer",
            "wrapup": {"code": f"w{number}", "durationSeconds": number},
            "afterCallWork": {"state": "pending", "startTime": iso(BASE_MS - 9_000 * number - 1_000)},
            "cobrowseSessionId": f"s{number}",
            "controlling": [f"m{number + index}" for index in range(number % 3)],
        }


_PARKED, _PARKS = 60, 32
"""About as many communications with as many parks as a state holds."""


def _show_parked(shown: dict[str, Any]) -> dict[str, Any]:
    return {"id": "parked", "messages": [{"id": f"parked{number}"} | shown for number in range(_PARKED)]}


@cache
def _parked_state() -> bytes:
    """The state of a conversation with all these parks, and a resume after each."""
    engine = PythonEngine(_OPTIONS)
    engine.start(0, None)
    for number in range(2 * _PARKS):
        park_ms = BASE_MS - 1_000_000 + 2_000 * (number // 2)
        shown = {"state": "parked", "parkTime": iso(park_ms)}
        if number % 2:
            shown = shown | {"state": "connected", "connectedTime": iso(BASE_MS - 2_000_000)}
        body = {"id": "c1", "participants": [_show_parked(shown)]}
        value = msgspec.json.encode({"topicName": TOPICS["nested"], "eventBody": body})
        record = Record("in", 0, number, BASE_MS - 1_000_000 + 2_000 * number, b"c1", value)
        engine.process([record], 0, 60.0, now_s=0.0, now_ms=BASE_MS)
    (state,) = engine.outputs().states
    assert state.value is not None
    return state.value


_NEVER = BreakerLimits(ratio_max=1.0, window_records=1_000_000, consecutive_max=1_000_000)
_OPTIONS = EngineOptions(RULES, _NEVER, DeadLetterFormat(keep_payload=True, payload_bytes_max=2**20, version="1"))

PLAIN = (
    *(Choices(filling) for filling in FILLINGS),
    *(Choices(filling, deep=True) for filling in FILLINGS),
    *(Choices(filling, half="first") for filling in FILLINGS),
    *(Choices(filling, deep=True, half="last", wrong=True, where="participant") for filling in FILLINGS),
    *(Choices(filling, deep=True, half="last", envelope="EventBridge", wrong=True) for filling in FILLINGS),
    *(Choices("text", communications=count) for count in (240, 480)),
    *(Choices("text", communications=480, array=array) for array in ("calls", "messages")),
    Choices("text", communications=480, same_communication=True),
    Choices("text", participants=1_900, communications=0),
    Choices("text", participants=480, same_participant=True),
    Choices("text", participants=480, topic="flat co-browse", same_participant=True),
    Choices("text", participants=480, topic="flat call", same_participant=True),
    Choices("text", participants=160, communications=3, deep=True),
    *(
        Choices(filling, deep=True, half="last", wrong=True, where="participant", participants=499)
        for filling in ("sparse halves", "quotes in a text", "brackets in a text")
    ),
    *(
        Choices(filling, half="last", wrong=True, participants=499)
        for filling in ("halves among quotes", "halves among backslashes", "texts of quotes", "text")
    ),
    *(Choices(filling, contradicts=True) for filling in ("text", "halves among quotes")),
    *(Choices("numbered texts", name, "communication") for name in ("controlling", "state", "cobrowseSessionId")),
    *(Choices("objects", name, "participant") for name in ("calls", "cobrowsesessions", "participants")),
    *(Choices(filling, "participants", "body") for filling in ("objects", "nothings", "numbers", "texts")),
    *(Choices("wide text", name, "participant") for name in ("purpose", "id")),
    Choices("wide text", "state", "communication"),
    *(Choices("halves among quotes", frame=frame) for frame in FRAMES),
    *(Choices("texts of quotes", frame=frame) for frame in ("Connect four times", "SNS in SQS", "text twice")),
    *(Choices("text", participants=499, frame=frame) for frame in ("Connect", "CloudEvents in base64", "SNS", "array")),
)
"""Each way to be hostile on its own."""


def cost_s(choices: Choices, value: bytes, rounds: int = _ROUNDS, engine_class: EngineClass = PythonEngine) -> float:
    """The CPU time that the engine takes for such a record without a pause, the least of several attempts."""
    attempts = [_attempt_s(choices, value, engine_class(_OPTIONS)) for _ in range(rounds)]
    return max(min(first_s for first_s, _ in attempts), min(again_s for _, again_s in attempts))


def _attempt_s(choices: Choices, value: bytes, engine: Engine) -> tuple[float, float]:
    """For what is known before it, and where it has been shown already."""
    for cached in (normalize._normalize_cached, timestamps._parse_text, timestamps._normalize_text, timestamps.to_text):
        cached.cache_clear()
    if choices.contradicts:
        engine.states.restore([(b"c1", _parked_state())])
        engine.states.settle(1)
    engine.start(0, None)
    return _longest_s(engine, value, 0), _longest_s(engine, value, 1)


def _longest_s(engine: Engine, value: bytes, offset: int) -> float:
    """Of the calls that process a record, if time is always up."""
    record = Record("in", 0, offset, BASE_MS + offset, b"c1", value)
    longest_s, is_done = 0.0, False
    while not is_done:
        started_s = time.process_time()
        is_done = engine.process([record], 0, 0.0, now_s=0.0, now_ms=BASE_MS).next_index == 1
        longest_s = max(longest_s, time.process_time() - started_s)
    return longest_s


def vary(chance: random.Random, choices: Choices) -> Choices:
    """The same with one other choice."""
    options: dict[str, Callable[[], Any]] = {
        "filling": lambda: chance.choice(list(FILLINGS)),
        "name": lambda: chance.choice(NAMES),
        "where": lambda: chance.choice(("document", "body", "participant", "communication")),
        "topic": lambda: chance.choice(list(TOPICS)),
        "participants": lambda: chance.choice((0, 1, 2, 30, 300, 499, 1_999, 2_001)),
        "communications": lambda: chance.choice((0, 1, 3, 30, 300, 499, 501)),
        "same_participant": lambda: chance.random() < 0.5,
        "same_communication": lambda: chance.random() < 0.5,
        "array": lambda: chance.choice(("calls", "cobrowsesessions", "messages")),
        "deep": lambda: chance.random() < 0.5,
        "half": lambda: chance.choice(("", "first", "last")),
        "envelope": lambda: chance.choice(("WebSocket", "EventBridge")),
        "frame": lambda: chance.choice(list(FRAMES)),
        "wrong": lambda: chance.random() < 0.5,
        "contradicts": lambda: chance.random() < 0.5,
        "size": lambda: chance.choice((SIZE_MAX, SIZE_MAX, LONG_BYTES - 1)),
    }
    name = chance.choice(list(options))
    found = msgspec.structs.replace(choices, **{name: options[name]()})
    return found if found.participants * found.communications <= 2_100 else choices  # not more than is read anyway


def search(
    chance: random.Random, seconds: float, engine_class: EngineClass, best: int = 8
) -> list[tuple[float, Choices]]:
    """The costliest choices found in that time, the worst first."""
    until_s = time.monotonic() + seconds
    found = {choices: cost_s(choices, choices.value(), _ROUNDS, engine_class) for choices in PLAIN}
    while time.monotonic() < until_s:
        worst = sorted(found, key=lambda each: -found[each])[:best]
        choices = vary(chance, vary(chance, chance.choice(worst)))
        if choices not in found and len(value := choices.value()) <= SIZE_MAX:
            found[choices] = cost_s(choices, value, _ROUNDS, engine_class)
    return sorted(((cost, choices) for choices, cost in found.items()), key=lambda each: -each[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.hostile", description="Find the costliest record."
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--engine", choices=("python", "native"), default="python")
    given = parser.parse_args()
    print(f"--seed {given.seed} --engine {given.engine}", file=sys.stderr)
    engine_class = import_native() if given.engine == "native" else PythonEngine
    found = search(random.Random(given.seed), given.seconds, engine_class)
    ordinary = calibration.draw_ordinary(SIZE_MAX)
    worst = []
    for cost, choices in found[:20]:
        again = cost_s(choices, choices.value(), _ROUNDS_OF_WORST, engine_class)
        worst.append((min(cost, again), calibration.walk_s(ordinary), choices))
    ordinary_s = min(seconds for _, seconds, _ in worst)
    worst.sort(key=lambda each: -each[0])
    for cost, _, choices in worst[:10]:
        line: dict[str, Any] = {"name": "hostile", "milliseconds": round(cost * 1_000, 1)}
        line |= {
            "of_ordinary": round(cost / ordinary_s, 2),
            "of": len(found),
            "choices": msgspec.structs.asdict(choices),
        }
        print(msgspec.json.encode(line).decode(), flush=True)
    sys.exit(worst[0][0] * 1_000 > PROMISED_MS)


if __name__ == "__main__":
    main()
