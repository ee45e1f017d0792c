"""Whose record it is and when, as `decode` says it."""

import json
from itertools import islice

import pytest

from consumer.core.decode import Snapshot, decode, identify
from consumer.core.extent import NESTING_MAX
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.simulator.traffic import Traffic, records
from tests.strategies import BASE_MS, NESTED_TOPICS, OTHER_TOPICS, make_record, websocket

RULES = Rules(key_mismatch="apply")


def test_every_record_that_can_be_used_is_identified_as_it_is_decoded() -> None:
    used = 0
    for number, draft in enumerate(islice(records(Traffic(broken=0.1, ignorable=0.1)), 2_000)):
        record = Record("in", 0, number, draft.timestamp_ms, b"another", draft.value, draft.headers)
        found, identity = decode(record, RULES), identify(record, RULES)
        if isinstance(found, Snapshot):
            used += 1
            assert identity is not None
            assert (identity.conversation_id, identity.time_ms) == (found.conversation_id, found.time_ms)
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
def test_nothing_is_claimed_of_a_record_that_cannot_be_used(record: Record) -> None:
    assert identify(record, RULES) is None
