"""Which way a transaction ended of which brokers have lost markers."""

from itertools import product

import pytest

from consumer.runtime.bookmark import OUTPUTS, Bookmark, Ends, OutputName
from consumer.runtime.settlement import Settlement, Verdict, decide

ENDS = Ends(10, 20, 30)
"""Where the outputs end with the commit before."""
BEFORE = Bookmark(5, 2, ENDS)
AFTER = Bookmark(6, 3, Ends(14, 24, 34))
"""Bookmarks of that commit and of the transaction that hangs, were it committed."""
STARTS: dict[OutputName, int] = {"state": 11, "transitions": 21, "dead_letters": 31}
"""Where the records of that transaction begin: a marker lies between it and the commit before."""
SOME = [tuple(name for name, held in zip(OUTPUTS, held, strict=True) if held) for held in product((0, 1), repeat=3)]
"""All sets of outputs."""


def hanging(*outputs: OutputName, is_offset_pending: bool = False) -> Settlement:
    return Settlement(hanging={output: STARTS[output] for output in outputs}, is_offset_pending=is_offset_pending)


def judge(settlement: Settlement, bookmark: Bookmark | None, *shown: OutputName, known: bool = False) -> Verdict | None:
    return decide(settlement, bookmark, frozenset(shown), is_known_commit=known)


@pytest.mark.parametrize("outputs", [outputs for outputs in SOME if outputs])
def test_an_offset_that_is_decided_decides(outputs: tuple[OutputName, ...]) -> None:
    """Its bookmark says which records of an output belong to the commit."""
    assert judge(hanging(*outputs), AFTER) == "commit"
    assert judge(hanging(*outputs), BEFORE) == "abort"


@pytest.mark.parametrize(("written", "lost"), list(product(SOME, SOME)))
@pytest.mark.parametrize("is_offset_lost", [True, False])
@pytest.mark.parametrize("was_committed", [True, False])
def test_the_verdict_never_contradicts_what_is_seen(
    written: tuple[OutputName, ...], lost: tuple[OutputName, ...], *, is_offset_lost: bool, was_committed: bool
) -> None:
    """Whatever a transaction wrote, and wherever its marker was lost: readers see all of it or nothing."""
    lost = tuple(output for output in written if output in lost)
    settlement = hanging(*lost, is_offset_pending=is_offset_lost)
    if not settlement.hangs:
        return
    shown = [output for output in written if output not in lost and was_committed]
    bookmark = AFTER if was_committed and not is_offset_lost else BEFORE
    verdict = judge(settlement, bookmark, *(shown if is_offset_lost else []))
    is_seen = bool(shown) or not is_offset_lost
    assert verdict == ("commit" if was_committed and is_seen else "abort")


@pytest.mark.parametrize("outputs", SOME)
def test_what_a_lane_was_told_is_known(outputs: tuple[OutputName, ...]) -> None:
    """Its commit was answered, so it is one, though nothing shows it."""
    settlement = hanging(*outputs, is_offset_pending=True)
    assert judge(settlement, BEFORE, known=True) == "commit"
    assert judge(settlement, None, known=True) == "commit"


def test_a_first_transaction_that_nobody_saw_is_aborted() -> None:
    """There is no offset to compare with: the outputs end at their beginning."""
    assert judge(hanging("state"), None) == "abort"
    assert judge(hanging(is_offset_pending=True), None) == "abort"
    assert judge(hanging(is_offset_pending=True), None, "state") == "commit"


def test_an_offset_that_was_reset_has_no_part_in_what_hangs() -> None:
    """Whoever reset it wants its records to be read again."""
    assert judge(hanging("state", "transitions"), Bookmark()) == "abort"
    assert judge(hanging("state", "transitions"), Bookmark(5)) == "abort"


@pytest.mark.parametrize(
    ("settlement", "bookmark"),
    [
        (hanging("transitions"), Bookmark(5, 2, Ends(10))),  # an older version committed
        (hanging("state", "dead_letters"), Bookmark(5, 2, Ends(10))),
        (hanging(is_offset_pending=True), Bookmark(5, 2, Ends(10))),
        (hanging(is_offset_pending=True), Bookmark()),
        (Settlement(hanging={"state": 9, "transitions": 21}), BEFORE),  # of two transactions
        (Settlement(hanging={"state": 9}, is_offset_pending=True), BEFORE),
    ],
)
def test_what_cannot_be_known_is_not_decided(settlement: Settlement, bookmark: Bookmark) -> None:
    """An end that nobody knows, or records that contradict each other."""
    assert judge(settlement, bookmark) is None
