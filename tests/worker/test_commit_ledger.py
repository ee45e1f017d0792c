"""The commit ledger when commits succeed, fail or lose their answer."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.commit_stats import CommitStats
from consumer.worker.commit_ledger import CommitLedger, InFlight, is_other_topic
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import RetriableError

Fate = Literal["answered", "lost", "failed"]
FATES: list[Fate] = ["answered", "lost", "failed"]


def commit(offset: int) -> InFlight:
    return InFlight(offset, CommitStats(), 0.0)


@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 5)), max_size=30))
def test_successful_commit_counts_once(attempts: list[tuple[Fate, int]]) -> None:
    """It counts whether its answer arrived or was lost; after a lost answer or a failure the lane reopens."""
    ledger, committed = CommitLedger().resume(0), None
    succeeded: list[int] = []
    counted: list[int] = []
    for fate, records in attempts:
        offset = (committed or 0) + records
        ledger = ledger.begin(commit(offset))
        if fate != "failed":
            committed = offset
            succeeded.append(offset)
        if fate == "answered":
            assert ledger.in_flight is not None
            counted.append(ledger.in_flight.next_offset)
            ledger = ledger.succeed(Ends())
            assert (ledger.newest_offset, ledger.resume_offset) == (offset, offset)
        else:
            ledger, late = ledger.reconcile(committed)
            counted += [] if late is None else [late.next_offset]
            assert ledger.newest_offset == committed
        assert ledger.in_flight is None
    assert counted == succeeded


@pytest.mark.parametrize("committed", [None, 0, 6])
def test_older_committed_offset_is_stale(committed: int | None) -> None:
    ledger = CommitLedger().begin(commit(7)).succeed(Ends())
    with pytest.raises(RetriableError, match=f"{committed} is older than 7"):
        ledger.reconcile(committed)


def test_stale_offset_leaves_the_commit_in_flight() -> None:
    """The offset is read again, and may then prove that the commit succeeded."""
    ledger = CommitLedger().begin(commit(7)).succeed(Ends()).begin(commit(9))
    with pytest.raises(RetriableError):
        ledger.reconcile(5)
    _, late = ledger.reconcile(9)
    assert late == commit(9)


def test_commit_of_a_fenced_lane_never_counts() -> None:
    ledger, late = CommitLedger().begin(commit(7)).fence().reconcile(7)
    assert (ledger.newest_offset, late) == (7, None)


def test_recreated_topic_makes_older_offsets_valid() -> None:
    ledger = CommitLedger().read_from("a").begin(commit(7)).succeed(Ends())
    assert ledger.read_from("").newest_offset == ledger.read_from("a").newest_offset == 7
    reconciled, late = ledger.read_from("b").reconcile(None)
    assert (reconciled.newest_offset, reconciled.topic_id, late) == (None, "b", None)


def test_ends_advance_only_where_a_commit_wrote() -> None:
    ledger = CommitLedger().open(Ends(1, 2, 3)).begin(commit(7)).succeed(Ends(transitions=9))
    assert ledger.ends == Ends(1, 9, 3)


@pytest.mark.parametrize(
    ("known", "current", "is_other"), [("a", "b", True), ("a", "a", False), ("", "b", False), ("a", "", False)]
)
def test_only_two_known_ids_distinguish_topics(known: str, current: str, is_other: bool) -> None:  # noqa: FBT001 - a column
    assert is_other_topic(known, current) is is_other
