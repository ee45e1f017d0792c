"""What `inspect` concludes about a conversation."""

import pytest

from consumer.core import timestamps
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.query.timeline_view import communications
from consumer.tools.conclusion import Evidence, conclude
from consumer.tools.explain import explain
from consumer.tools.replay import Replay
from tests.strategies import at
from tests.worker.scenes import call, rubbish

RULES = Rules()


def ms(seconds: float) -> int:
    parsed = timestamps.parse(at(seconds))
    assert parsed is not None
    return parsed


def conclusion(*records: Record, seconds: float, consumed: int = 100) -> list[str]:
    """What is concluded so long after the first record, with all records at hand."""
    replay, evidence = Replay(RULES), Evidence()
    for record in records:
        before, outcome = replay.apply(record)
        replay.commit()
        evidence.add(explain(record, RULES, before, outcome), is_consumed=record.offset < consumed)
    stored = replay.store.lookup("c1")
    return from_state(stored, seconds, evidence)


def from_state(stored: StoredState | None, seconds: float, evidence: Evidence | None = None) -> list[str]:
    state = None if stored is None else stored.state
    views = [] if state is None else communications(state, RULES.park_cycles_max)
    return conclude("c1", state, views, ms(seconds), evidence)


def test_a_live_communication_names_the_record_that_shows_it() -> None:
    records = call(4, "alerting", 1), call(5, "connected", 2), call(6, "connected", 2)
    live, newest = conclusion(*records, seconds=3_725)
    assert live == (
        f"Live: call m1 of participant p1 is connected since {at(2)}, for 1h 2m (by the record at offset 5, which "
        f"arrived {at(2)}); no record ends it."
    )
    assert newest == f"The newest snapshot is of {at(2)}, 1h 2m ago; the record at offset 5 changed the state last."


def test_a_correction_of_what_was_before_shows_nothing_new() -> None:
    """It asserts the state again, which another record showed; a better time of it comes from its own record."""
    records = call(0, "connected", 5), call(1, "alerting", 1), call(2, "connected", 4)
    for count, offset in ((1, 0), (2, 0), (3, 2)):
        live, _ = conclusion(*records[:count], seconds=10)
        assert f"(by the record at offset {offset}, " in live


def test_a_communication_that_is_over_names_what_ended_it() -> None:
    over, _ = conclusion(call(0, "connected", 2), call(1, "disconnected", 9, disconnectType="peer"), seconds=10)
    assert over == (
        f"Over: the last of 1 communications to end, call m1 of participant p1, is disconnected (peer) since {at(9)}, "
        f"for 1s (by the record at offset 1, which arrived {at(9)})."
    )


def test_refused_records_have_their_remedy() -> None:
    *_, refused = conclusion(call(0, "connected", 2), rubbish(1), rubbish(2), seconds=10)
    assert refused == (
        "Refused as bad_json: 2 of its records, the last at offset 2. Fix what wrote them, and put them back: "
        "`dead-letters redrive --key c1`."
    )


def test_records_that_wait_are_counted() -> None:
    assert "1 of its 2 records are not consumed yet: look at the worker's lag." in conclusion(
        call(0, "connected", 2), call(1, "disconnected", 9), seconds=10, consumed=1
    )
    (*_, waits) = conclude("c1", None, [], 0, is_undecided=True)
    assert waits == "There may be more of it: records of its partition wait for the end of an open transaction."


def test_many_live_communications_are_counted() -> None:
    sentences = conclusion(*(call(n, "connected", n, communication_id=f"m{n}") for n in range(8)), seconds=10)
    assert sum(sentence.startswith("Live: ") for sentence in sentences) == 5
    assert "3 more communications are live." in sentences


def test_a_conversation_without_a_state_has_a_conclusion() -> None:
    assert from_state(None, 0, Evidence()) == [
        "There is no state of it: no record of it was applied, or it was evicted.",
        "The input has no record of it.",
    ]


@pytest.mark.parametrize(
    ("seconds", "age"), [(1, "0s"), (61, "59s"), (62, "1m 0s"), (86_402, "1d 0h"), (266_402.5, "3d 2h")]
)
def test_an_age_has_two_units(seconds: float, age: str) -> None:
    assert f"since {at(2)}, for {age} (" in conclusion(call(0, "connected", 2), seconds=seconds)[0]
