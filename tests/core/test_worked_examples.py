"""The worked examples of the ordering rules: records in any order, and the transitions that stand in the end."""

import itertools
import json
from typing import Any

import pytest

from consumer.core.record import Record
from tests import model
from tests.core.play import play
from tests.strategies import BASE_MS, iso

# Seconds after an arbitrary start: p providerEventTime, c connectedTime, d disconnectedTime, k parkTime, at the snapshot.
_FIELDS = {"p": "providerEventTime", "c": "connectedTime", "d": "disconnectedTime", "k": "parkTime", "r": "resumeTime"}
Shown = tuple[str, dict[str, float]]
Standing = list[tuple[str, float, str]]

EXAMPLES: dict[str, tuple[str, list[Shown], Standing]] = {
    "a session from alert to end": (
        "cobrowsesessions",
        [("alerting", {"p": 1}), ("connected", {"p": 5, "c": 5}), ("disconnected", {"p": 9, "d": 9})],
        [("alerting", 1, "provider"), ("connected", 5, "provider"), ("disconnected", 9, "provider")],
    ),
    "a control change seen first": (
        "cobrowsesessions",
        [("connected", {"p": 400, "c": 5.1, "at": 401})],
        [("connected", 5.1, "state")],
    ),
    "a control change, and the event of the state": (
        "cobrowsesessions",
        [("connected", {"p": 400, "c": 5.1, "at": 401}), ("connected", {"p": 5, "c": 5.1})],
        [("connected", 5, "provider")],
    ),
    "a delayed alert without a time": (
        "calls",
        [("connected", {"c": 5}), ("alerting", {"at": 600})],
        [("alerting", 5, "snapshot"), ("connected", 5, "state")],
    ),
    "two clocks that disagree": (
        "calls",
        [("connected", {"c": 12}), ("disconnected", {"d": 11.8})],
        [("connected", 12, "state"), ("disconnected", 12, "state")],
    ),
    "a park and its resume": (
        "messages",
        [("connected", {"c": 5}), ("parked", {"k": 60}), ("connected", {"c": 5, "k": 60, "r": 3_600, "at": 300})],
        [("connected", 5, "state"), ("parked", 60, "state"), ("connected", 300, "snapshot")],
    ),
    "only the end was seen": (
        "calls",
        [("terminated", {"c": 5, "d": 80})],
        [("connected", 5, "state"), ("disconnected", 80, "state"), ("terminated", 80, "state")],
    ),
    "a clock an hour ahead": (
        "cobrowsesessions",
        [("connected", {"p": 3_605, "c": 5.1, "at": 5.2})],
        [("connected", 5.1, "state")],
    ),
    "one state, three snapshots": (
        "chats",
        [("alerting", {"at": 2}), ("alerting", {"at": 4}), ("alerting", {"at": 3})],
        [("alerting", 2, "snapshot")],
    ),
    "two states at one time": (
        "cobrowsesessions",
        [("connected", {"p": 5, "c": 5}), ("alerting", {"p": 5})],
        [("alerting", 5, "provider"), ("connected", 5, "provider")],
    ),
    "a state nobody knows, with an end": (
        "calls",
        [("connected", {"c": 5}), ("vanished", {"c": 5, "d": 8})],
        [("connected", 5, "state"), ("vanished", 8, "state")],
    ),
}


def _ms(seconds: float) -> int:
    return BASE_MS + round(seconds * 1_000)


def _record(array: str, offset: int, shown: Shown) -> Record:
    state, told = shown
    leg: dict[str, Any] = {"id": "m1", "state": state}
    leg |= {_FIELDS[name]: iso(_ms(seconds)) for name, seconds in told.items() if name in _FIELDS}
    body = {"id": "c-1", "participants": [{"id": "p1", array: [leg]}]}
    value = json.dumps({"topicName": "v2.users.u.conversations", "eventBody": body}).encode()
    at = told.get("at", max(told.values()))
    return Record("in", 0, offset, _ms(at), b"c-1", value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name: str) -> None:
    array, shown, expected = EXAMPLES[name]
    wanted = [(state, iso(_ms(seconds)), time_class) for state, seconds, time_class in expected]
    numbered = [_record(array, offset, each) for offset, each in enumerate(shown)]
    for order in itertools.permutations(numbered):
        log = play(order).log
        standing = sorted(model.net(log).values(), key=lambda each: wanted.index(_told(each)))
        assert [_told(each) for each in standing] == wanted
        assert [each["from"] for each in standing] == [None, *(state for state, _, _ in wanted[:-1])]
    told_by_model = model.standing(numbered, model.Rules())["c-1"]
    assert [_told(each) for each in told_by_model] == wanted


def _told(transition: dict[str, Any]) -> tuple[str, str, str]:
    return transition["to"], transition["eventTime"], transition["timeClass"]
