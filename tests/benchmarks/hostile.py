"""The records that hold the event loop longest: `python -m tests.benchmarks.hostile [--seconds 60] [--seed N]`.

A record is drawn by a few choices - how many participants and communications, which of them are the same, and with what
the rest is filled up to the largest size that is read - and those that cost most are varied further. What counts is the
time that the core takes for one record, whether its conversation is new or has just been shown the same. No broker is
needed. The figures are of this machine.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from consumer.core import showing, times
from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from tests.strategies import BASE_MS, iso

RULES = Rules()
SIZE_MAX = RULES.record_bytes_max
PROMISED_MS = 50.0
_ROUNDS = 3


def _text(unit: bytes) -> Callable[[int], bytes]:
    return lambda room: b'"' + unit * max(0, (room - 2) // len(unit)) + b'"'


def _listed(unit: bytes) -> Callable[[int], bytes]:
    def make(room: int) -> bytes:
        return b"[" + b",".join([unit] * max(0, (room - 1) // (len(unit) + 1))) + b"]"

    return make


def _members(name: bytes) -> Callable[[int], bytes]:
    return lambda room: b"{" + b",".join([b'"' + name + b'":0'] * max(0, (room - 1) // (len(name) + 5))) + b"}"


def _numbered(room: int) -> bytes:
    return b"[" + b",".join([b'"%016d"' % (each * 7_919 % 999_983) for each in range(max(0, room // 19))]) + b"]"


_NEST = b"[" * 200 + b"]" * 200
FILLINGS: dict[str, Callable[[int], bytes]] = {
    "text": _text(b"x"),
    "wide text": _text("\u00c9".encode()),
    "control characters": _text(rb"\u0001"),
    "brackets in a text": _text(b"["),
    "quotes in a text": _text(rb"\""),
    "backslashes in a text": _text(rb"\\"),
    "no escapes in a text": _text(rb"\\u"),
    "pairs of surrogates": _text(rb"\ud83d\ude00"),
    "halves of characters": _text(rb"\ud83d"),
    "sparse halves": _text(rb"\ud83d" + b"x" * 300),
    "texts": _listed(b'""'),
    "bracket texts": _listed(b'"["'),
    "long bracket texts": _listed(b'"' + b"[" * 60 + b'"'),
    "numbered texts": _numbered,
    "nothings": _listed(b"null"),
    "numbers": _listed(b"1.5e9"),
    "long numbers": _listed(b"1." + b"9" * 2_000),
    "pairs": _listed(b"[]"),
    "objects": _listed(b"{}"),
    "nests": _listed(_NEST),
    "sparse nests": _listed(_NEST + b"," + b'"' + b"x" * 4_000 + b'"'),
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
    half: bool = False

    def value(self, size: int = SIZE_MAX) -> bytes:
        """The value of such a record, of about that size and no larger."""
        people = [self._participant(number) for number in range(self.participants)]
        body: dict[str, Any] = {"id": "c1", "participants": people}
        if self.deep:
            body["deep"] = json.loads(b"[" + b",".join([b"[[]]"] * 200) + b"]")
        if self.half:
            body["half"] = "\ud83d"
        place = body if self.where == "body" or not people else people[-1]
        if self.where == "communication" and people and people[-1].get(self.array):
            place = people[-1][self.array][-1]
        place[self.name] = "?filling?"
        document = {"topicName": TOPICS[self.topic], "eventBody": body} if self.topic != "none" else body
        before, _, after = json.dumps(document, separators=(",", ":")).encode().partition(b'"?filling?"')
        return before + FILLINGS[self.filling](size - len(before) - len(after)) + after

    def _participant(self, number: int) -> dict[str, Any]:
        who: dict[str, Any] = {"id": "p1" if self.same_participant else f"p{number}", "userId": f"u{number}"}
        legs = [self._communication(number * self.communications + each) for each in range(self.communications)]
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
            "controlling": [f"m{number + each}" for each in range(number % 3)],
        }


PLAIN = (
    *(Choices(filling) for filling in FILLINGS),
    *(Choices(filling, deep=True) for filling in FILLINGS),
    *(Choices(filling, half=True) for filling in FILLINGS),
    *(Choices("text", communications=count) for count in (240, 480)),
    *(Choices("text", communications=480, array=array) for array in ("calls", "messages")),
    Choices("text", communications=480, same_communication=True),
    Choices("text", participants=1_900, communications=0),
    Choices("text", participants=480, same_participant=True),
    Choices("text", participants=480, topic="flat co-browse", same_participant=True),
    Choices("text", participants=480, topic="flat call", same_participant=True),
    Choices("text", participants=160, communications=3, deep=True),
    *(Choices("numbered texts", name, "communication") for name in ("controlling", "state", "cobrowseSessionId")),
    *(Choices("objects", name, "participant") for name in ("calls", "cobrowsesessions", "participants")),
    *(Choices(filling, "participants", "body") for filling in ("objects", "nothings", "numbers", "texts")),
    *(Choices("wide text", name, "participant") for name in ("purpose", "id")),
    Choices("wide text", "state", "communication"),
)
"""Each way to be hostile on its own."""


def cost_s(value: bytes, rounds: int = _ROUNDS) -> float:
    """The CPU time that one such record takes at most, the least of several attempts."""
    attempts = [list(_attempt_s(value)) for _ in range(rounds)]
    return max(min(anew for anew, _ in attempts), min(again for _, again in attempts))


def _attempt_s(value: bytes) -> Iterator[float]:
    """For a new conversation, and for one that has been shown the same."""
    for cache in (showing._remembered, times._parse_text, times._published_text, times.text):
        cache.cache_clear()
    known: Known | None = None
    for seconds in range(2):
        record = Record("in", 0, seconds, BASE_MS + seconds, b"c1", value)
        started_s = time.process_time()
        outcome = step(record, RULES, None, lambda _, known=known: known)  # type: ignore[misc]
        yield time.process_time() - started_s
        known = outcome.known


def varied(chance: random.Random, choices: Choices) -> Choices:
    """The same with one choice made anew."""
    options: dict[str, Callable[[], Any]] = {
        "filling": lambda: chance.choice(list(FILLINGS)),
        "name": lambda: chance.choice(NAMES),
        "where": lambda: chance.choice(("body", "participant", "communication")),
        "topic": lambda: chance.choice(list(TOPICS)),
        "participants": lambda: chance.choice((0, 1, 2, 30, 300, 499, 1_999, 2_001)),
        "communications": lambda: chance.choice((0, 1, 3, 30, 300, 499, 501)),
        "same_participant": lambda: chance.random() < 0.5,
        "same_communication": lambda: chance.random() < 0.5,
        "array": lambda: chance.choice(("calls", "cobrowsesessions", "messages")),
        "deep": lambda: chance.random() < 0.5,
        "half": lambda: chance.random() < 0.5,
    }
    name = chance.choice(list(options))
    found = msgspec.structs.replace(choices, **{name: options[name]()})
    return found if found.participants * found.communications <= 2_100 else choices  # not more than is read anyway


def search(chance: random.Random, seconds: float, best: int = 8) -> list[tuple[float, Choices]]:
    """The costliest choices found in that time, the worst first."""
    until_s = time.monotonic() + seconds
    found = {choices: cost_s(choices.value()) for choices in PLAIN}
    while time.monotonic() < until_s:
        worst = sorted(found, key=lambda each: -found[each])[:best]
        choices = varied(chance, varied(chance, chance.choice(worst)))
        if choices not in found and len(value := choices.value()) <= SIZE_MAX:
            found[choices] = cost_s(value)
    return sorted(((cost, choices) for choices, cost in found.items()), key=lambda each: -each[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.hostile", description="Find the costliest record."
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"--seed {given.seed}", file=sys.stderr)
    found = search(random.Random(given.seed), given.seconds)
    for cost, choices in found[:10]:
        line = {"name": "hostile", "milliseconds": round(cost * 1_000, 1), "of": len(found)}
        print(msgspec.json.encode(line | {"choices": msgspec.structs.asdict(choices)}).decode(), flush=True)
    sys.exit(found[0][0] * 1_000 > PROMISED_MS)


if __name__ == "__main__":
    main()
