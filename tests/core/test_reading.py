"""The stages in which a value is read, down to its envelope."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.envelope import Envelope
from consumer.core.framing import FRAMINGS_MAX, Framed
from consumer.core.reading import (
    Checked,
    Envelopes,
    NoUpdate,
    Opened,
    Parts,
    Rejected,
    Stage,
    Unread,
    begin,
    open_envelope,
    read,
    split,
)
from consumer.core.record import Record
from consumer.core.rules import Rules
from tests.strategies import NESTED_TOPICS, make_record, websocket

RULES = Rules()
EVENT = websocket(NESTED_TOPICS[0], {"id": "c1", "participants": []})
SYSTEM = {"topicName": "channel.metadata"}
_STAGES_MAX = 3 * (FRAMINGS_MAX + 1) + len(("parts",))
"""A frame is checked, parsed and unwrapped."""


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def read_all(record: Record) -> tuple[list[type[Stage]], Opened | NoUpdate | Rejected]:
    """The kinds of all stages, and what the last one gives."""
    stages: list[type[Stage]] = []
    stage: Stage | Opened | NoUpdate | Rejected = begin(record, RULES)
    while isinstance(stage, Stage):
        stages.append(type(stage))
        stage = read(stage)
    return stages, stage


@pytest.mark.parametrize(
    ("value", "stages", "result"),
    [
        (b"x" * (RULES.record_bytes_max + 1), [], Rejected),
        (encode(EVENT), [Framed, Checked], Envelope),
        (b"{", [Framed, Checked, Unread], Rejected),
        (b"[" * 300, [Framed], Rejected),
        (encode(SYSTEM), [Framed, Checked], NoUpdate),
        (encode(json.dumps(EVENT)), [Framed, Checked, Unread, Framed, Checked], Envelope),
        (encode({"schema": None, "payload": None}), [Framed, Checked, Unread, Framed], NoUpdate),
        (encode([EVENT, SYSTEM]), [Framed, Checked, Unread, Parts], Envelopes),
        (encode([SYSTEM]), [Framed, Checked, Unread, Parts], NoUpdate),
        (encode([EVENT, 5]), [Framed, Checked, Unread, Parts], Rejected),
    ],
)
def test_stages_of_a_value(value: bytes, stages: list[type[Stage]], result: type[Opened]) -> None:
    read_stages, opened = read_all(make_record(value))
    assert (read_stages, type(opened)) == (stages, result)


def test_tombstone_is_no_update() -> None:
    assert begin(Record("t", 0, 0, -1, b"c1", None), RULES) == NoUpdate("tombstone")


def test_batch_that_could_not_be_read_is_too_large() -> None:
    record = Record("t", 0, 0, -1, None, None, unread="more than 8388608 bytes")
    assert begin(record, RULES) == Rejected("too_large", "more than 8388608 bytes")


@given(
    st.binary(max_size=40)
    | st.recursive(st.sampled_from([EVENT, SYSTEM, 5, None]), lambda inner: st.lists(inner, max_size=3)).map(encode)
    | st.integers(0, FRAMINGS_MAX + 2).map(lambda depth: b"\0\0\0\0\x07" * depth + encode(EVENT))
)
def test_reading_is_total_and_bounded(value: bytes) -> None:
    stages, opened = read_all(make_record(value))
    assert len(stages) <= _STAGES_MAX
    at_once = open_envelope(make_record(value), RULES)
    assert type(opened) is type(at_once)
    if not isinstance(opened, Opened):
        assert opened == at_once


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (encode([EVENT, SYSTEM]), [EVENT, SYSTEM]),
        (encode(EVENT) + b"\n" + encode(SYSTEM), [EVENT, SYSTEM]),
        (encode(EVENT), [EVENT]),
    ],
)
def test_each_value_of_a_record_is_split_off(value: bytes, parts: list[Any]) -> None:
    assert [json.loads(part.value or b"") for part in split(make_record(value), RULES)] == parts


def test_record_that_cannot_be_read_is_not_split() -> None:
    record = make_record(encode([EVENT, 5]))
    assert split(record, RULES) == [record]
