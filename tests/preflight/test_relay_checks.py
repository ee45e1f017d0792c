"""What `check` says of a relay, by the records that it has written."""

import json
from collections.abc import Sequence

import pytest

from consumer.core.record import Record
from consumer.kafka.records import partition_of
from consumer.preflight import relay_checks
from consumer.preflight.check_result import CheckResult, CheckStatus
from consumer.preflight.relay_checks import Habits
from consumer.settings import Settings
from tests.core.test_framing import WRAPS
from tests.strategies import BASE_MS

PARTITIONS = 4
BODY = {"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}
PLAIN = json.dumps({"topicName": "v2.users.u.conversations", "eventBody": BODY}).encode()
HEARTBEAT = json.dumps({"topicName": "channel.metadata", "eventBody": {"message": "WebSocket Heartbeat"}}).encode()
HOME = partition_of(b"c1", PARTITIONS)


def record(value: bytes | None = PLAIN, key: bytes = b"c1", partition: int = HOME, at_ms: int = BASE_MS) -> Record:
    return Record("in", partition, 7, at_ms, key, value)


def describe(records: Sequence[Record]) -> list[CheckResult]:
    habits = Habits(Settings(bootstrap_servers="b:1").rules(), PARTITIONS)
    for written in records:
        habits.note(written)
    return relay_checks.describe("in", habits)


def test_nothing_is_known_of_a_relay_that_wrote_nothing() -> None:
    (result,) = describe([])
    assert (result.status, "no records in 'in'" in result.message) == ("pass", True)


def test_ordinary_records_pass() -> None:
    results = describe([record(), record(), record(HEARTBEAT), record(None)])
    assert [(result.status, result.message) for result in results] == [
        ("pass", "of the newest 4 records all can be used: 2 updates, 2 of other kinds (1 heartbeat, 1 tombstone)"),
        ("pass", "values have no frames"),
        ("pass", "keys are the conversation id, in the partitions of Kafka's own partitioner"),
        ("pass", "all records have a timestamp"),
    ]


FRAMED = WRAPS["SNS in SQS"][0](json.loads(PLAIN))
SPELLED = record(key=b'"c1"')


@pytest.mark.parametrize(
    ("records", "status", "says"),
    [
        ([record(), record(b"\x00\x01")], "warn", "2 records not all can be used: 1 updates, 1 dead letters (1 bad_"),
        ([record(b"\x00\x01")], "warn", f"see partition {HOME}, offset 7: bad_"),
        (
            [record(key=b"other")],
            "warn",
            "use the conversation id as key, or copy the topic with `conv",
        ),
        ([record(), record(FRAMED)], "pass", "of 2 updates have frames, which cost CPU: 1 sqs, 1 sns"),
        ([SPELLED, SPELLED], "pass", "keys are 2 key_text, in the partitions"),
        ([SPELLED, record()], "warn", "keys are spelled in several ways, of 2 updates: 1 key_text"),
        ([SPELLED, record(key=b"C1")], "warn", "of 2 updates: 1 key_text, 1 key_case"),
        ([record(partition=HOME - 1)], "warn", "1 of 1 updates lie in another partition"),
        ([record(at_ms=-1), record()], "warn", "1 of 2 records have a timestamp that is no time"),
    ],
)
def test_what_is_said(records: list[Record], status: CheckStatus, says: str) -> None:
    found = [result for result in describe(records) if says in result.sentence]
    assert [result.status for result in found] == [status], describe(records)


def test_no_value_is_shown() -> None:
    said = json.dumps([result.sentence for result in describe([record(b'{"id":"secret-1",}', b"secret-2")])])
    assert "secret" not in said
