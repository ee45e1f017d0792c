"""Whether a transaction whose markers brokers have lost was committed or aborted."""

from itertools import product

import pytest

from consumer.settings import OUTPUTS, OutputName
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.settlement import Settlement, Verdict, decide

ENDS = Ends(10, 20, 30)
"""The ends of the outputs after the previous commit."""
BEFORE = OffsetMetadata(5, 2, ENDS)
AFTER = OffsetMetadata(6, 3, Ends(14, 24, 34))
"""Offset metadata of the previous commit, and of the hanging transaction if it was committed."""
STARTS: dict[OutputName, int] = {"state": 11, "transitions": 21, "dead_letters": 31}
"""The first offsets of the hanging transaction, behind the marker of the previous commit."""
SUBSETS = [tuple(name for name, held in zip(OUTPUTS, held, strict=True) if held) for held in product((0, 1), repeat=3)]
"""Every subset of the outputs."""


def make_hanging(*outputs: OutputName, is_offset_pending: bool = False) -> Settlement:
    return Settlement(hanging={output: STARTS[output] for output in outputs}, is_offset_pending=is_offset_pending)


def decide_verdict(
    settlement: Settlement, metadata: OffsetMetadata | None, *visible: OutputName, known: bool = False
) -> Verdict | None:
    return decide(settlement, metadata, frozenset(visible), is_known_commit=known)


@pytest.mark.parametrize("outputs", [outputs for outputs in SUBSETS if outputs])
def test_decided_offset_decides_the_outputs(outputs: tuple[OutputName, ...]) -> None:
    """The offset's metadata says which records of an output belong to the commit."""
    assert decide_verdict(make_hanging(*outputs), AFTER) == "commit"
    assert decide_verdict(make_hanging(*outputs), BEFORE) == "abort"


@pytest.mark.parametrize(("written", "lost"), list(product(SUBSETS, SUBSETS)))
@pytest.mark.parametrize("is_offset_lost", [True, False])
@pytest.mark.parametrize("was_committed", [True, False])
def test_verdict_agrees_with_what_readers_have_seen(
    written: tuple[OutputName, ...], lost: tuple[OutputName, ...], *, is_offset_lost: bool, was_committed: bool
) -> None:
    """Wherever a marker was lost, readers see all of the transaction or none of it."""
    lost = tuple(output for output in written if output in lost)
    settlement = make_hanging(*lost, is_offset_pending=is_offset_lost)
    if not settlement.hangs:
        return
    visible = [output for output in written if output not in lost and was_committed]
    metadata = AFTER if was_committed and not is_offset_lost else BEFORE
    verdict = decide_verdict(settlement, metadata, *(visible if is_offset_lost else []))
    is_visible = bool(visible) or not is_offset_lost
    assert verdict == ("commit" if was_committed and is_visible else "abort")


@pytest.mark.parametrize("outputs", SUBSETS)
def test_answered_commit_is_committed(outputs: tuple[OutputName, ...]) -> None:
    """The lane received the answer, so the commit succeeded, even if no output shows it yet."""
    settlement = make_hanging(*outputs, is_offset_pending=True)
    assert decide_verdict(settlement, BEFORE, known=True) == "commit"
    assert decide_verdict(settlement, None, known=True) == "commit"


def test_first_transaction_without_visible_records_is_aborted() -> None:
    """There is no committed offset to compare with, so every output counts as empty."""
    assert decide_verdict(make_hanging("state"), None) == "abort"
    assert decide_verdict(make_hanging(is_offset_pending=True), None) == "abort"
    assert decide_verdict(make_hanging(is_offset_pending=True), None, "state") == "commit"


def test_reset_offset_aborts_the_hanging_transaction() -> None:
    """The operator who reset the offset wants its records to be read again."""
    assert decide_verdict(make_hanging("state", "transitions"), OffsetMetadata()) == "abort"
    assert decide_verdict(make_hanging("state", "transitions"), OffsetMetadata(5)) == "abort"


@pytest.mark.parametrize(
    ("settlement", "metadata"),
    [
        (make_hanging("transitions"), OffsetMetadata(5, 2, Ends(10))),  # an older version committed
        (make_hanging("state", "dead_letters"), OffsetMetadata(5, 2, Ends(10))),
        (make_hanging(is_offset_pending=True), OffsetMetadata(5, 2, Ends(10))),
        (make_hanging(is_offset_pending=True), OffsetMetadata()),
        (Settlement(hanging={"state": 9, "transitions": 21}), BEFORE),  # of two transactions
        (Settlement(hanging={"state": 9}, is_offset_pending=True), BEFORE),
    ],
)
def test_missing_or_contradictory_ends_give_no_verdict(settlement: Settlement, metadata: OffsetMetadata) -> None:
    """Without a verdict an operator has to decide."""
    assert decide_verdict(settlement, metadata) is None
