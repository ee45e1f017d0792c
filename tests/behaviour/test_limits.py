"""The limits of a record and of a conversation: at the limit it is applied, just beyond it is not."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from consumer.core.extent import NESTING_MAX
from consumer.core.outcomes import Outcome
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from schemas.inbound import LIST_LENGTH_MAX, TEXT_LENGTH_MAX
from tests.core.play import play
from tests.core.play import process as process_record
from tests.outcomes import expect_applied, expect_dead_letter
from tests.strategies import NESTED_TOPICS, at, eventbridge, make_record, websocket


def process(record: Record, known: StoredState | None = None, **rules: Any) -> Outcome:
    return process_record(record, Rules(**rules), None, known)


def disposition(outcome: Outcome) -> tuple[str, str]:
    return outcome.disposition, outcome.reason


def conversation(participants: list[Any], seconds: float = 0.0, offset: int = 0) -> Record:
    return make_record(
        websocket(NESTED_TOPICS[0], {"id": "c1", "participants": participants}), seconds=seconds, offset=offset
    )


def calls(count: int, participants: int = 1, seconds: float = 0.0) -> Record:
    """A conversation with `count` calls, distributed over the participants."""
    listed: list[dict[str, Any]] = [{"id": f"p{number}", "calls": []} for number in range(participants)]
    for number in range(count):
        listed[number % participants]["calls"].append({"id": f"m{number}", "state": "connected"})
    return conversation(listed, seconds)


@pytest.mark.parametrize(
    ("over", "expected"), [(-1, ("applied", "")), (0, ("applied", "")), (1, ("dead_lettered", "too_large"))]
)
def test_record_bytes_max(over: int, expected: tuple[str, str]) -> None:
    record = calls(1)
    size = len(record.value or b"")
    outcome = process(record, record_bytes_max=size - over)
    assert disposition(outcome) == expected
    if over > 0:
        assert expect_dead_letter(outcome).detail == f"{size} bytes, record_bytes_max is {size - over}"


def test_a_record_beyond_the_limit_is_not_read() -> None:
    assert disposition(process(make_record(b'{"id":"c1",'), record_bytes_max=10)) == ("dead_lettered", "too_large")
    assert disposition(process(make_record(b'{"id":"c1"'), record_bytes_max=10)) == ("dead_lettered", "bad_json")


@pytest.mark.parametrize("participants", [1, 2, 5])
@pytest.mark.parametrize(("count", "expected"), [(5, ("applied", "")), (6, ("dead_lettered", "too_large"))])
def test_communications_max(count: int, participants: int, expected: tuple[str, str]) -> None:
    outcome = process(calls(count, participants), communications_max=5)
    assert disposition(outcome) == expected
    if outcome.disposition == "dead_lettered":
        assert expect_dead_letter(outcome).detail == "6 communications, communications_max is 5"


def test_communications_max_counts_those_of_earlier_records() -> None:
    known = expect_applied(process(calls(5), communications_max=5)).stored
    more = conversation([{"id": "p9", "chats": [{"id": "m9", "state": "alerting"}]}], seconds=1)
    assert disposition(process(more, known, communications_max=5)) == ("dead_lettered", "too_large")
    assert disposition(process(more, known, communications_max=6)) == ("applied", "")
    assert disposition(process(calls(5, seconds=1), known, communications_max=5)) == ("applied", "")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("over", "expected"), [(0, ("applied", "")), (1, ("dead_lettered", "too_large"))])
def test_state_bytes_max(over: int, expected: tuple[str, str], known: bool) -> None:  # noqa: FBT001
    before = expect_applied(process(calls(1))).stored if known else None
    record = calls(3, seconds=1)
    size = len(expect_applied(process(record, before)).stored.published)
    outcome = process(record, before, state_bytes_max=size - over)
    assert disposition(outcome) == expected
    if over:
        assert expect_dead_letter(outcome).detail == f"state of {size} bytes, state_bytes_max is {size - 1}"


def test_a_record_beyond_a_limit_still_moves_stream_time() -> None:
    record = calls(6, seconds=5)
    assert process(record, communications_max=5).stream_ms == record.timestamp_ms


@pytest.mark.parametrize(
    "members",
    [
        lambda text: {"id": text},
        lambda text: {"userId": text},
        lambda text: {"calls": [{"id": text, "state": "connected"}]},
        lambda text: {"calls": [{"id": "m1", "state": text}]},
        lambda text: {"calls": [{"id": "m1", "state": "connected", "wrapup": {"code": text}}]},
        lambda text: {"cobrowsesessions": [{"id": "m1", "state": "connected", "controlling": ["p2", text]}]},
    ],
)
@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600"])
def test_text_length_max(members: Callable[[str], dict[str, Any]], character: str) -> None:
    longest = character * TEXT_LENGTH_MAX
    assert disposition(process(conversation([{"id": "p1", "calls": []} | members(longest)]))) == ("applied", "")
    outcome = process(conversation([{"id": "p1", "calls": []} | members(longest + character)]))
    assert disposition(outcome) == ("dead_lettered", "too_large")
    assert expect_dead_letter(outcome).detail.startswith("participants[0]: Expected `str` of length <= 256 - at `$.")


@pytest.mark.parametrize(
    "body",
    [
        lambda some: {"divisions": some},
        lambda some: {"recentTransfers": some},
        lambda some: {"participants": [{"id": "p1", "conversationRoutingData": {"skills": some}}]},
        lambda some: {"participants": [{"id": "p1", "calls": [{"id": "m1", "disconnectReasons": some}]}]},
    ],
)
def test_list_length_max(body: Callable[[list[Any]], dict[str, Any]]) -> None:
    longest = [None, *[{"id": "x"}] * (LIST_LENGTH_MAX - 1)]
    assert disposition(process(make_record({"id": "c1", "participants": []} | body(longest)))) == ("applied", "")
    outcome = process(make_record({"id": "c1", "participants": []} | body([*longest, None])))
    assert disposition(outcome) == ("dead_lettered", "too_large")
    assert "Expected `array` of length <= 100 - at `$." in expect_dead_letter(outcome).detail


@pytest.mark.parametrize("frame", [lambda body: body, lambda body: {"eventBody": body}])
def test_a_conversation_id_of_more_characters_is_too_large(frame: Callable[[Any], Any]) -> None:
    longest = "c" * TEXT_LENGTH_MAX
    assert disposition(process(make_record(frame({"id": longest}), key=longest))) == ("applied", "")
    too_long = make_record(frame({"id": longest + "c"}), key=longest + "c")
    assert disposition(process(too_long)) == ("dead_lettered", "too_large")


def test_texts_that_are_not_kept_may_be_longer() -> None:
    secret = "s" * 5_000
    session: dict[str, Any] = {
        "id": "m1",
        "state": "connected",
        "viewerUrl": secret,
        "roomId": secret,
        "cobrowseSessionId": secret,
    }
    session["self"] = {"addressNormalized": secret, "addressRaw": secret}
    participant = {"id": "p1", "cobrowsesessions": [session], "name": secret}
    event = eventbridge(NESTED_TOPICS[0], {"id": "c1", "participants": [participant]}) | {"id": secret}
    assert disposition(process(make_record(event))) == ("applied", "")


def park(cycle: int) -> Record:
    message = {"id": "m1", "state": "parked", "connectedTime": at(0), "parkTime": at(cycle * 10)}
    return conversation([{"id": "p1", "messages": [message]}], seconds=cycle * 10, offset=cycle)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("cycles_max", "cycles", "kept"),
    [
        (4, 3, [1, 2, 3]),
        (4, 4, [1, 2, 3, 4]),
        (4, 5, [1, 3, 4, 5]),
        (4, 9, [1, 7, 8, 9]),
        (2, 2, [1, 2]),
        (2, 3, [1, 3]),
    ],
)
def test_park_cycles_max_keeps_the_first_and_the_latest(
    cycles_max: int, cycles: int, kept: list[int], order: int
) -> None:
    records = [park(cycle) for cycle in range(1, cycles + 1)][::order]
    played = play(records, Rules(park_cycles_max=cycles_max))
    (communication,) = json.loads(played.states["c1"])["participants"][0]["communications"]
    timeline = communication["timeline"]
    cycles_kept = [observation["cycle"] for observation in timeline if observation["state"] == "parked"]
    assert cycles_kept == [at(cycle * 10) for cycle in kept]


def make_nested(depth: int, opening: bytes, closing: bytes) -> Record:
    """A conversation whose value has that depth of nesting, in a property that is not read."""
    inner = depth - 1
    return make_record(b'{"id":"c1","zz":' + opening * inner + b"1" + closing * inner + b"}")


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize(
    ("over", "expected"), [(-1, ("applied", "")), (0, ("applied", "")), (1, ("dead_lettered", "too_deep"))]
)
def test_nesting_max(opening: bytes, closing: bytes, over: int, expected: tuple[str, str]) -> None:
    assert disposition(process(make_nested(NESTING_MAX + over, opening, closing))) == expected


@pytest.mark.parametrize(("depth", "reason"), [(NESTING_MAX, "bad_json"), (NESTING_MAX + 1, "too_deep")])
def test_brackets_that_never_close_count_as_nesting(depth: int, reason: str) -> None:
    value = b'{"id":"c1","zz":' + b"[" * (depth - 2) + b"[],[]"
    assert disposition(process(make_record(value))) == ("dead_lettered", reason)


@pytest.mark.parametrize(
    "value",
    [
        b'{"id":"c1","zz":"' + b"[" * 5_000 + b'"}',
        b'{"id":"c1","zz":"\\"' + b"{[" * 5_000 + b'\\\\"}',
        b'{"id":"c1","zz":[' + b"[]," * 5_000 + b"[]]}",
    ],
)
def test_many_brackets_are_not_deep_nesting(value: bytes) -> None:
    assert disposition(process(make_record(value))) == ("applied", "")
