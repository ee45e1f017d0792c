"""Dead letters by reason: counts, and the newest of each."""

from msgspec.structs import replace

from consumer.core import timestamps
from consumer.core.record import Record
from consumer.engine.dead_letters import DeadLetter
from consumer.tools.dead_letter_summary import NewestByReason, ReasonSummary
from consumer.tools.redrive import DeadLetterStatus
from tests.strategies import BASE_MS

LETTER = DeadLetter(1, 7, BASE_MS, "late", "", "1", "", 0, Record("updates", 2, 70, 4_000, b"k", b"v"))


def status(seconds: int, reason: str = "late", *, is_redriven: bool = False, left_out: str = "") -> DeadLetterStatus:
    letter = replace(LETTER, time_ms=BASE_MS + seconds * 1_000, reason=reason, left_out=left_out)
    return DeadLetterStatus(letter, is_redriven)


def test_a_summary_counts_its_dead_letters() -> None:
    summary = ReasonSummary("late")
    summary.add(status(5, is_redriven=True))
    summary.add(status(1, left_out="dropped"))
    summary.add(status(3))
    assert summary.document() == {
        "reason": "late",
        "letters": 3,
        "redriven": 1,
        "withoutPayload": 1,
        "first": timestamps.to_text(BASE_MS + 1_000),
        "last": timestamps.to_text(BASE_MS + 5_000),
        "inputPartitions": [2],
    }


def test_the_newest_of_each_reason_are_kept() -> None:
    """They are read partition by partition, so a later one may be older."""
    read = [(1, "late"), (4, "late"), (3, "late"), (2, "no_time")]
    for limit, kept in ((1, [2, 4]), (2, [2, 3, 4]), (9, [1, 2, 3, 4])):
        newest: NewestByReason[int] = NewestByReason(limit)
        for seconds, reason in read:
            newest.add(status(seconds, reason), seconds)
        assert newest.items() == kept


def test_of_dead_letters_with_one_time_the_last_read_are_kept() -> None:
    newest: NewestByReason[str] = NewestByReason(2)
    for item in "abc":
        newest.add(status(1), item)
    assert newest.items() == ["b", "c"]
