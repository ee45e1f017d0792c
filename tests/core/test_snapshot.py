"""`identify` agrees with `decode`."""

import json
from itertools import islice

import pytest
from msgspec.structs import replace

from consumer.core.extent import NESTING_MAX
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode, identify
from consumer.simulator.traffic import Traffic, records
from tests.strategies import BASE_MS, NESTED_TOPICS, OTHER_TOPICS, make_record, websocket

RULES = Rules()


def test_usable_records_are_identified_as_they_are_decoded() -> None:
    used = 0
    for number, draft in enumerate(islice(records(Traffic(broken=0.1, ignorable=0.1)), 2_000)):
        record = Record("in", 0, number, draft.timestamp_ms, draft.key, draft.value, draft.headers)
        decoded, identity = decode(record, RULES), identify(replace(record, key=b"another"), RULES)
        if isinstance(decoded, Snapshot):
            used += 1
            assert identity is not None
            assert (identity.conversation_id, identity.time_ms) == (decoded.conversation_id, decoded.time_ms)
    assert used > 1_000


BODY = {"id": "c1", "participants": []}


@pytest.mark.parametrize(
    "record",
    [
        Record("in", 0, 0, BASE_MS, b"c1", None),
        make_record(json.dumps(BODY).encode() + b" " * RULES.record_bytes_max),
        make_record(b'{"id":"c1","zz":' + b"[" * NESTING_MAX + b"]" * NESTING_MAX + b"}"),
        make_record(b'{"id":"c1",'),
        make_record(websocket(OTHER_TOPICS[0], BODY)),
        make_record(websocket(NESTED_TOPICS[0], {"id": ""})),
        make_record(websocket(NESTED_TOPICS[0], None)),
    ],
    ids=["tombstone", "too large", "too deep", "broken", "another topic", "no id", "no body"],
)
def test_unusable_records_have_no_identity(record: Record) -> None:
    assert identify(record, RULES) is None
