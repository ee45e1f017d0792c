"""Hostile input: any record gets a disposition, and the model agrees with it.

Every run draws a new seed and prints it; `FUZZ_SEED` repeats a run.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest
from hypothesis import settings

from consumer.core.outcomes import Applied, DeadLettered, Outcome
from consumer.core.reasons import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.core.step import step
from consumer.simulator.traffic import Traffic, records
from tests import model
from tests.core.play import process
from tests.outcomes import expect_applied
from tests.strategies import BASE_MS, NESTED_TOPICS, make_record, websocket

INPUTS = settings().max_examples * 1_000
CPU_S_MAX = 100.0
"""Stops a run that hangs: all inputs together take ten seconds."""
OF_ORDINARY_MAX = 60
"""The CPU time of a huge input, in that of four megabytes of ordinary records; the costliest takes 20."""
SEEN = {"bad_json", "bad_utf8", "wrong_type", "too_deep", "no_conversation_id", "key_mismatch", "tombstone"}
JUDGED_EVERY = 40
"""The model is slow: it judges one input in 40."""

TIMES = (
    "2026-01-01T10:00:00Z", "2026-01-01 10:00:00.123456789+23:59", "2026-02-30T10:00:00Z", "2026-01-01",
    "9999-12-31T23:59:59.999Z", "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "0001-01-01T00:00Z",
    "٢٠٢٦-01-01T10:00:00Z", "", "now",
    0, -1, 1, BASE_MS, BASE_MS / 1_000, float(BASE_MS), 2**63 - 1, 2**63, -(2**63), 1e308, -0.0, 1e-320,
)  # fmt: skip
HOSTILE: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], [{}], {"": {}}, "", "\0", "\ud7ff", "\U0010ffff", "x" * 5_000, "c1", "p1",
    2**64, -(2**64), 10**400, 0.1, {"id": {}}, [1, "a", None, {"id": []}], *TIMES,
)  # fmt: skip
TOKENS = (
    b"null", b"true", b"{}", b"[]", b'""', b"-0", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"0123",
    b'"\\ud800"', b'"\\x"',
    b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b'"id":', b'"id":"c2",', b'"participants":[],',
    b"[" * 300, b'{"a":' * 300, b"}", b"]", b",", b":", b'"', b"\\", b"/*", b"\x1f\x8b\x08\x00",
)  # fmt: skip


def paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(deeper for name, value in inner for deeper in paths(value, (*path, name)))]


def replace_value(chance: random.Random, value: bytes) -> bytes:
    """Put something hostile at some path, or repeat a member."""
    document = json.loads(value)
    *outer, last = chance.choice(paths(document)[1:])
    parent = document
    for name in outer:
        parent = parent[name]
    parent[last] = chance.choice(HOSTILE)
    text = json.dumps(document, ensure_ascii=chance.random() < 0.5)
    if chance.random() < 0.2:
        hostile = json.dumps({str(last): chance.choice(HOSTILE)})[1:-1]
        text = text.replace("{", "{" + hostile + ",", 1)
    return text.encode("utf-8", "surrogatepass")


def damage(chance: random.Random, value: bytes) -> bytes:
    """Cut the bytes, splice them, repeat some or insert others."""
    at, to = sorted(chance.choices(range(len(value) + 1), k=2))
    match chance.randrange(5):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + chance.choice(TOKENS) + value[at:]
        case 2:
            return value[:at] + chance.choice(TOKENS) + value[min(to, at + 40) :]
        case 3:
            return value[:at] + chance.randbytes(chance.randrange(1, 9)) + value[at + 1 :]
        case _:
            return value[:at] + value[at:to] * 2 + value[to:]


def assert_has_disposition(outcome: Outcome) -> None:
    assert outcome.reason in {"", *IGNORED_REASONS, *DEAD_LETTER_REASONS} - {"internal_error"}, outcome
    assert (outcome.disposition == "dead_lettered") == (outcome.reason in DEAD_LETTER_REASONS)


def test_hostile_input_gets_the_disposition_of_the_model() -> None:
    """And never an internal error."""
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(10**6)))
    print("seed", seed)
    chance = random.Random(seed)
    valid = [
        draft
        for draft in islice(records(Traffic(seed=seed, conversations=50, flat=0.3)), 4_000)
        if not draft.broken and len(draft.value) < 4_000
    ]
    states: dict[str, StoredState] = {}
    stream_ms: int | None = None
    seen: Counter[str] = Counter()
    until_s = time.thread_time() + CPU_S_MAX
    for offset in range(INPUTS):
        draft = chance.choice(valid)
        value = (damage if chance.random() < 0.8 else replace_value)(chance, draft.value)
        key = draft.key if chance.random() < 0.9 else chance.choice((None, b"", b"c1", b"\xff"))
        is_tombstone = chance.random() < 0.002
        record = Record("in", 0, offset, draft.timestamp_ms, key, None if is_tombstone else value, draft.headers)
        outcome = step(record, Rules(), stream_ms, states.get)
        stream_ms = outcome.stream_ms
        assert_has_disposition(outcome)
        seen[outcome.reason or "applied"] += 1
        if isinstance(outcome, Applied):
            states[outcome.conversation_id] = outcome.stored
        if offset % JUDGED_EVERY == 0:
            assert_agrees_with_model(record, outcome)
        assert time.thread_time() < until_s, f"{offset} inputs took {CPU_S_MAX:g} s of CPU"
    assert seen["applied"] > INPUTS // 20
    assert seen.keys() >= SEEN


def assert_agrees_with_model(record: Record, outcome: Outcome) -> None:
    """Compare the outcome with the model's verdict on the record alone."""
    match model.judge(record, model.Rules()):
        case model.Ignored(reason):
            assert (outcome.disposition, outcome.reason) == ("ignored", reason), record
        case model.Rejected(reason, reasons):
            assert outcome.disposition == "dead_lettered", record
            assert outcome.reason in reasons | {reason} | (
                {"too_deep", "too_large"} if reason == "bad_json" else set()
            ), record
        case _:
            assert outcome.disposition in {"applied", "unchanged"} or outcome.reason == "late", record.value


def make_nested(members: str) -> bytes:
    return b'{"topicName":"v2.users.u.conversations","eventBody":{"id":"c1",' + members.encode() + b"}}"


def one_participant(calls: Iterable[str]) -> bytes:
    return make_nested('"participants":[{"id":"p1","calls":[' + ",".join(calls) + "]}]")


def measure(value: bytes, key: bytes | None = b"c1") -> tuple[Outcome, float]:
    """The outcome of a record, and the CPU time of its step in seconds."""
    began_s = time.thread_time()
    outcome = step(Record("in", 0, 0, BASE_MS, key, value), Rules(), None, lambda _: None)
    return outcome, time.thread_time() - began_s


@pytest.fixture(scope="module")
def ordinary_s() -> float:
    """The CPU time of four megabytes of ordinary records, the least of three times."""
    drafts = list(islice(records(Traffic(broken=0, ignorable=0)), 1_500))
    megabytes = sum(len(draft.value) for draft in drafts) / 1_000_000
    return min(sum(measure(draft.value, draft.key)[1] for draft in drafts) for _ in range(3)) * 4 / megabytes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (make_nested('"participants":[' + "{}," * 999_999 + "{}]"), "too_large"),
        (make_nested('"participants":[' + "null," * 799_999 + "null]"), "too_large"),
        (make_nested('"participants":[' + "{}," * 1_999 + "{}]"), "nothing_usable"),
        (make_nested('"participants":[' + "null," * 1_999 + "null]"), ""),
        (make_nested('"participants":[' + "null," * 2_000 + "null]"), "too_large"),
        (make_nested('"participants":[' + ",".join(f'{{"id":"p{i}"}}' for i in range(200_000)) + "]"), "too_large"),
        (one_participant(f'{{"id":"m{i}","state":"alerting"}}' for i in range(110_000)), "too_large"),
        (one_participant(f'{{"id":"m1","state":"s{i}"}}' for i in range(140_000)), "too_large"),
        (one_participant(f'{{"id":"m{i}","state":"alerting"}}' for i in range(501)), "too_large"),
        (one_participant(f'{{"id":"m1","state":"s{i}"}}' for i in range(500)), ""),
        (one_participant("null" for _ in range(500)), ""),
        (one_participant("null" for _ in range(501)), "too_large"),
        (make_nested('"attributes":"' + "x" * 4_000_000 + '"'), ""),
        (make_nested('"attributes":"' + "x" * 8_000_000 + '"'), "too_large"),
        (make_nested('"attributes":' + "[" * 100_000 + "]" * 100_000), "too_deep"),
        (make_nested('"attributes":' + '{"a":' * 100_000), "too_deep"),
        (make_nested('"attributes":"' + "[" * 1_000_000 + '"'), ""),
        (b"[" * 4_000_000, "too_deep"),
        (b'"' * 4_000_000, "wrong_type"),
        (b"9" * 4_000_000, "wrong_type"),
        (b"\xff" * 4_000_000, "bad_json"),
    ],
    ids=range(21),
)
def test_huge_input_is_processed_in_bounded_time(value: bytes, reason: str, ordinary_s: float) -> None:
    outcome, cpu_s = measure(value)
    of_ordinary = cpu_s / ordinary_s
    print(f"{cpu_s:.2f} s of CPU, {of_ordinary:.1f} of ordinary records")
    assert of_ordinary < OF_ORDINARY_MAX
    assert outcome.reason == reason
    process(Record("in", 0, 0, BASE_MS, b"c1", value), Rules())
    assert not isinstance(outcome, DeadLettered) or len(outcome.detail) < 500


def test_a_compressed_value_is_broken_json() -> None:
    outcome = process(make_record(b"\x1f\x8b\x08\x00" + bytes(100)), Rules())
    assert outcome.reason == "bad_json"


def test_the_last_of_repeated_members_counts() -> None:
    body = {"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}
    value = json.dumps(websocket(NESTED_TOPICS[0], body)).encode()
    doubled = value.replace(b'"state"', b'"state": "alerting", "state"')
    plain, twice = (process(make_record(variant), Rules()) for variant in (value, doubled))
    assert expect_applied(plain).stored == expect_applied(twice).stored
