"""What a dead letter contains."""

import pytest
from msgspec.structs import replace

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.core.step import step
from consumer.engine.dead_letters import REDRIVES_HEADER, DeadLetterFormat, build, parse
from consumer.engine.output import Output
from tests.outcomes import expect_dead_letter
from tests.strategies import BASE_MS, NESTED_TOPICS, TOPIC, make_record, websocket
from tests.worker.scenes import rubbish

MARK = "personal-mark"


def build_letter(
    record: Record, *, keep_payload: bool = True, payload_bytes_max: int = 900_000, outcome: DeadLettered | None = None
) -> Output:
    rejected = outcome or expect_dead_letter(step(record, Rules(), None, lambda _: None))
    return build(record, rejected, DeadLetterFormat(keep_payload, payload_bytes_max, "1.2.3"))


def decode_headers(letter: Output) -> dict[str, str]:
    assert len(dict(letter.headers)) == len(letter.headers)
    return {name: (value or b"").decode() for name, value in letter.headers}


def test_dead_letter_is_the_original_with_reason_and_source() -> None:
    record = Record(TOPIC, 5, 77, BASE_MS, b"\xff\x00", b'{"id":', (("traceparent", b"00-1"),))
    letter = build_letter(record)
    assert (letter.key, letter.value) == (record.key, record.value)
    headers = decode_headers(letter)
    assert headers.pop("cc-detail")
    assert headers == {
        "cc-reason": "bad_json",
        "cc-source-topic": TOPIC,
        "cc-source-partition": "5",
        "cc-source-offset": "77",
        "cc-source-timestamp-ms": str(BASE_MS),
        "cc-service-version": "1.2.3",
    }


def test_only_known_headers_with_valid_values_are_carried() -> None:
    """Another header is dropped even if its value has digits only."""
    headers = (
        ("phone", b"15551234"),
        (SNAPSHOT_TIME_HEADER, b"9" * 16),
        (SNAPSHOT_TIME_HEADER, b"5"),
        (REDRIVES_HEADER, None),
        (REDRIVES_HEADER, b"2x"),
        (REDRIVES_HEADER, b"2"),
        (REDRIVES_HEADER, b"3"),
    )
    carried = decode_headers(build_letter(replace(rubbish(3), headers=headers)))
    assert "15551234" not in carried.values()
    assert (carried["cc-source-snapshot-time"], carried["cc-redrives"]) == ("5", "2")


@pytest.mark.parametrize("keep_payload", [True, False])
def test_parsed_dead_letter_equals_the_built_one(keep_payload: bool) -> None:  # noqa: FBT001
    record = Record(TOPIC, 5, 77, -1, b"k", b'{"id":', ((SNAPSHOT_TIME_HEADER, b"5"), (REDRIVES_HEADER, b"2")))
    letter = build_letter(record, keep_payload=keep_payload, outcome=DeadLettered("late", "why", None))
    parsed = parse(Record("letters", 1, 9, BASE_MS, b"left", b"behind", tuple(letter.headers)))
    assert parsed is not None
    assert (parsed.partition, parsed.offset, parsed.time_ms, parsed.redrives) == (1, 9, BASE_MS, 2)
    assert (parsed.reason, parsed.detail, parsed.version) == ("late", "why", "1.2.3")
    assert parsed.left_out == ("" if keep_payload else "dropped")
    key, value = (b"left", b"behind") if keep_payload else (None, None)
    assert parsed.original == Record(TOPIC, 5, 77, -1, key, value, ((SNAPSHOT_TIME_HEADER, b"5"),))


@pytest.mark.parametrize("name", ["cc-source-partition", "cc-source-offset", "cc-source-timestamp-ms", "cc-reason"])
@pytest.mark.parametrize("wrong", [b"x", b"-2", b"9" * 20, "\u00b2".encode(), None])
def test_record_without_source_headers_is_no_dead_letter(name: str, wrong: bytes | None) -> None:
    letter = build_letter(rubbish(3))
    record = Record("letters", 0, 9, BASE_MS, letter.key, letter.value, tuple(letter.headers))
    assert parse(record) is not None
    headers = tuple((header, wrong if header == name else value) for header, value in letter.headers)
    assert (parse(replace(record, headers=headers)) is None) == (name != "cc-reason" or wrong is None)


def test_dropped_payload_leaves_out_key_and_value() -> None:
    letter = build_letter(rubbish(3), keep_payload=False)
    assert (letter.key, letter.value) == (None, b"")
    assert decode_headers(letter)["cc-payload"] == "dropped"
    assert decode_headers(letter)["cc-source-offset"] == "3"


@pytest.mark.parametrize(
    ("key", "value_bytes", "left_out"),
    [
        (b"c1", 998, None),
        (b"c1", 999, "1001 bytes left out"),
        (b"c" * 501, 500, "1001 bytes left out"),
        (None, 1_000, None),
        (None, 1_001, "1001 bytes left out"),
    ],
)
def test_too_large_payload_is_left_out(key: bytes | None, value_bytes: int, left_out: str | None) -> None:
    record = Record(TOPIC, 0, 0, BASE_MS, key, b"[" * value_bytes)
    letter = build_letter(record, payload_bytes_max=1_000)
    assert decode_headers(letter).get("cc-payload") == left_out
    assert (letter.key, letter.value) == ((record.key, record.value) if left_out is None else (None, b""))


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
    letter = build_letter(record, keep_payload=keep_payload)
    assert MARK not in str(letter.headers)
    assert (MARK in str(letter)) is keep_payload


def test_detail_of_an_internal_error_omits_its_message() -> None:
    """The message may contain a value of the record."""

    def lookup(_: str) -> StoredState | None:
        raise KeyError(MARK)

    record = make_record(websocket(NESTED_TOPICS[0], {"id": "c1"}))
    letter = build_letter(record, keep_payload=False, outcome=expect_dead_letter(step(record, Rules(), None, lookup)))
    assert decode_headers(letter)["cc-reason"] == "internal_error"
    assert decode_headers(letter)["cc-detail"].startswith("KeyError in lookup, line ")
    assert MARK not in str(letter)
