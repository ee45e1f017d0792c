"""Whose record it is and when, as `decode` says it."""

from itertools import islice

from consumer.core.decode import Snapshot, decode, identify
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.simulator.traffic import Traffic, records

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
