"""What a dead letter holds."""

import pytest

from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step
from consumer.runtime.dead_letters import dead_letter
from consumer.runtime.ports import Output
from tests.runtime.scenes import rubbish
from tests.strategies import BASE_MS, NESTED_TOPICS, TOPIC, make_record, websocket

MARK = "mark-of-somebody"


def letter_of(
    record: Record, *, keep_payload: bool = True, payload_bytes_max: int = 900_000, outcome: Outcome | None = None
) -> Output:
    found = outcome or step(record, Rules(), None, lambda _: None)
    assert found.disposition == "dead_lettered"
    return dead_letter(record, found, keep_payload=keep_payload, payload_bytes_max=payload_bytes_max, version="1.2.3")


def headers(letter: Output) -> dict[str, str]:
    assert len(dict(letter.headers)) == len(letter.headers)
    return {name: text.decode() for name, text in letter.headers}


def test_a_dead_letter_is_the_original_with_why_and_where_from() -> None:
    record = Record(TOPIC, 5, 77, BASE_MS, b"\xff\x00", b'{"id":', (("traceparent", b"00-1"),))
    letter = letter_of(record)
    assert (letter.key, letter.value) == (record.key, record.value)
    found = headers(letter)
    assert found.pop("cc-detail")
    assert found == {
        "cc-reason": "bad_json",
        "cc-source-topic": TOPIC,
        "cc-source-partition": "5",
        "cc-source-offset": "77",
        "cc-source-timestamp-ms": str(BASE_MS),
        "cc-service-version": "1.2.3",
    }


def test_a_dropped_payload_leaves_key_and_value_out_and_says_so() -> None:
    letter = letter_of(rubbish(3), keep_payload=False)
    assert (letter.key, letter.value) == (None, b"")
    assert headers(letter)["cc-payload"] == "dropped"
    assert headers(letter)["cc-source-offset"] == "3"


@pytest.mark.parametrize(
    ("key", "value_bytes", "told"),
    [
        (b"c1", 998, None),
        (b"c1", 999, "1001 bytes left out"),
        (b"c" * 501, 500, "1001 bytes left out"),
        (None, 1_000, None),
        (None, 1_001, "1001 bytes left out"),
    ],
)
def test_a_payload_that_is_too_large_is_left_out(key: bytes | None, value_bytes: int, told: str | None) -> None:
    record = Record(TOPIC, 0, 0, BASE_MS, key, b"[" * value_bytes)
    letter = letter_of(record, payload_bytes_max=1_000)
    assert headers(letter).get("cc-payload") == told
    assert (letter.key, letter.value) == ((record.key, record.value) if told is None else (None, b""))


@pytest.mark.parametrize("keep_payload", [True, False])
@pytest.mark.parametrize(
    "record",
    [
        make_record(f'{{"id": "{MARK}", "participants": ["{MARK}"]}}'.encode(), key=MARK),
        make_record(f'{{"id": "{MARK}", "participants": [{{"id": {{"{MARK}": 1}}}}]}}'.encode(), key=MARK),
        make_record(websocket(NESTED_TOPICS[0], {"id": MARK, "participants": [{"name": MARK}]}), key=MARK),
        make_record(websocket(NESTED_TOPICS[0], {"id": MARK}), key="c1"),
        make_record(f'{{"id": "{MARK}'.encode(), key=MARK),
        make_record(f'{{"id": "{MARK}\udcff"}}'.encode(errors="surrogateescape"), key=MARK),
    ],
)
def test_no_header_holds_a_value_of_the_record(record: Record, keep_payload: bool) -> None:  # noqa: FBT001
    letter = letter_of(record, keep_payload=keep_payload)
    assert MARK not in str(letter.headers)
    assert (MARK in str(letter)) is keep_payload


def test_an_error_of_ours_is_told_without_its_text() -> None:
    def lookup(_: str) -> Known | None:
        raise KeyError(MARK)

    record = make_record(websocket(NESTED_TOPICS[0], {"id": "c1"}))
    letter = letter_of(record, keep_payload=False, outcome=step(record, Rules(), None, lookup))
    assert headers(letter)["cc-reason"] == "internal_error"
    assert headers(letter)["cc-detail"].startswith("KeyError in lookup, line ")
    assert MARK not in str(letter)
