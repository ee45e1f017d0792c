"""When too many dead letters stop a lane."""

import random
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from consumer.core.outcomes import Applied, DeadLettered, Ignored, Outcome, Unchanged
from consumer.core.reasons import DeadLetterReason
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.engine.circuit_breaker import BreakerLimits, CircuitBreaker
from tests.core.play import play
from tests.outcomes import expect_dead_letter
from tests.strategies import make_record
from tests.worker.scenes import call, rubbish

NUMBERS = iter(range(10**9))
UNCHANGED = Unchanged(stream_ms=0, template="other", conversation_id="", snapshot_ms=0, anomalies=())
OUTCOMES: dict[str, Outcome] = {
    "a": step(call(0, "alerting", 0), Rules(), None, lambda _: None),
    "u": UNCHANGED,
    "i": Ignored("heartbeat", None),
    "D": DeadLettered("bad_json", "", None),
}


def make_outcomes(letters: str) -> list[Outcome]:
    """Outcomes by the letters of `OUTCOMES`. A digit names the conversation; without one it is a new conversation."""
    made: list[Outcome] = []
    for letter in letters:
        if letter.isdigit():
            made[-1] = rename(made[-1], letter)
        else:
            made.append(rename(OUTCOMES[letter], f"n{next(NUMBERS)}"))
    return made


def rename(outcome: Outcome, conversation_id: str) -> Outcome:
    match outcome:
        case DeadLettered():
            return replace(outcome, key_text=conversation_id)
        case Applied() | Unchanged():
            return replace(outcome, conversation_id=conversation_id)
        case Ignored():
            return outcome


def add_all(outcomes: Iterable[Outcome], breaker: CircuitBreaker) -> int | None:
    """Add outcomes; returns the number of the one at which the breaker opened."""
    opened_at = None
    for number, outcome in enumerate(outcomes, 1):
        if breaker.add(outcome) and opened_at is None:
            opened_at = number
    return opened_at


def breaker_of(*, ratio_max: float = 0.5, window_records: int = 100, consecutive_max: int = 99) -> CircuitBreaker:
    return CircuitBreaker(BreakerLimits(ratio_max, window_records, consecutive_max))


def default_breaker(consecutive_max: int = 200) -> CircuitBreaker:
    """A breaker with the default limits of the settings."""
    return breaker_of(window_records=1_000, consecutive_max=consecutive_max)


def reject(record: Record) -> DeadLettered:
    """The outcome of a record that cannot be used."""
    return expect_dead_letter(step(record, Rules(), None, lambda _: None))


@pytest.mark.parametrize(
    ("letters", "number"),
    [
        ("DD", None),
        ("DDD", 3),
        ("DDaDDuDD", None),
        ("aDDD", 4),
        ("DiDiiD", 6),
        ("DDiaD", None),
        ("i" * 9, None),
        ("D1" * 9, None),
        ("D1D2" * 9, None),
        ("D1D1D2D1D3", 5),
        ("D1D2a1D3", None),
    ],
)
def test_breaker_opens_after_dead_letters_in_a_row(letters: str, number: int | None) -> None:
    breaker = breaker_of(consecutive_max=3)
    assert add_all(make_outcomes(letters), breaker) == number
    assert bool(breaker.open_reason) == (number is not None)


@pytest.mark.parametrize(
    ("ratio_max", "letters", "number"),
    [
        (0.5, "DaDa", None),
        (0.5, "DDDa", 4),
        (0.5, "DDuD", 4),
        (0.5, "DDD", None),
        (0.5, "DDiDia", 6),
        (0.5, "aaDDDDaa", None),
        (0.5, "aaDDaDDD", 8),
        (0.25, "Daaa", None),
        (0.25, "DaDa", 4),
        (1.0, "DDDD" * 3, None),
        (0.5, "D1" * 12, None),
        (0.5, "D1D2D1D2", 4),
        (0.5, "D1D2a3a3", 4),
        (0.5, "D1D1D2a3", 4),
        (0.5, "D1D1D1a2" * 3, None),
        (0.5, "D1D2a1a2", None),
        (0.25, "D1D2a1a2", 4),
    ],
)
def test_breaker_opens_by_the_share_of_a_full_window(ratio_max: float, letters: str, number: int | None) -> None:
    breaker = breaker_of(ratio_max=ratio_max, window_records=4)
    assert add_all(make_outcomes(letters), breaker) == number


def test_few_conversations_do_not_open_by_share() -> None:
    """At night a partition may hold nothing else: nine conversations in 1000 records are too few, ten are enough."""
    for conversations, opened_at in ((9, None), (10, 1_000)):
        breaker = breaker_of(window_records=1_000)
        letters = "".join(f"D{number % conversations}" for number in range(5_000))
        assert add_all(make_outcomes(letters), breaker) == opened_at


def test_one_too_large_conversation_does_not_open() -> None:
    """However many of its snapshots come, alone in the partition; unusable records still open it afterwards."""
    rules = Rules(communications_max=1)
    records = [call(offset, "connected", offset, communication_id=f"m{offset}") for offset in range(2_000)]
    played = play(records, rules)
    assert {outcome.reason for outcome in played.outcomes[1:]} == {"too_large"}
    breaker = default_breaker()
    assert add_all(played.outcomes, breaker) is None
    assert add_all([reject(rubbish(offset)) for offset in range(200)], breaker) == 200


@pytest.mark.parametrize("reason", ["late", "too_large"])
def test_late_and_too_large_records_do_not_count(reason: DeadLetterReason) -> None:
    """They count neither as dead letters nor as usable records."""
    breaker = breaker_of(consecutive_max=3, window_records=10)
    blameless = [DeadLettered(reason, "", None, key_text=f"b{number}") for number in range(50)]
    assert add_all(blameless, breaker) is None
    assert add_all([*make_outcomes("DD"), *blameless, *make_outcomes("D")], breaker) == 53


@pytest.mark.parametrize("key", [None, ""])
def test_unusable_records_without_keys_count_one_by_one(key: str | None) -> None:
    records = [make_record(b"no JSON", key=key, offset=offset) for offset in range(200)]
    assert add_all(map(reject, records), default_breaker()) == 200
    breaker = default_breaker(10_000)
    mixed = [outcome for record in records * 4 for outcome in (reject(record), *make_outcomes("a"), reject(record))]
    assert add_all(mixed, breaker) == 1_000


@pytest.mark.parametrize("key", [None, "relay-7"])
def test_wrong_key_counts_for_the_conversation_in_the_value(key: str | None) -> None:
    """A topic with one wrong key, or with none, opens the breaker; one conversation under that key does not."""
    several = [make_record({"id": f"c{number}", "participants": []}, key=key) for number in range(200)]
    assert add_all(map(reject, several), default_breaker()) == 200
    one = [make_record({"id": "c1", "participants": []}, key=key)] * 2_000
    assert add_all(map(reject, one), default_breaker()) is None


def test_undecodable_key_identifies_a_conversation() -> None:
    records = [replace(rubbish(offset), key=b"\xff%d" % (offset % 100)) for offset in range(2_000)]
    assert add_all(map(reject, records), default_breaker(100)) == 100
    assert add_all(map(reject, records), default_breaker(101)) == 1_000


def test_open_breaker_stays_open_with_its_first_cause() -> None:
    breaker = breaker_of(consecutive_max=2, window_records=3)
    add_all(make_outcomes("DD"), breaker)
    cause = breaker.open_reason
    assert all(breaker.add(outcome) for outcome in make_outcomes("aiuDDDaaaa"))
    assert breaker.open_reason == cause


def test_rollback_drops_uncommitted_outcomes() -> None:
    """Whatever is rolled back in between, the breaker opens at the same record as without it."""
    chance = random.Random(7)
    for _ in range(300):
        outcomes = make_outcomes("".join(chance.choice(["D1", "D2", "D3", "D", "D", "a1", "i"]) for _ in range(40)))
        limits = {"consecutive_max": 5, "window_records": 8}
        plain, tried, at = breaker_of(**limits), breaker_of(**limits), 0
        while at < len(outcomes) and not plain.open_reason:
            upto = at + chance.randint(1, 12)
            for _ in range(chance.randint(0, 2)):
                add_all(make_outcomes("D" * 4) if chance.random() < 0.5 else outcomes[at:upto], tried)
                tried.rollback()
                assert tried.open_reason == ""
            assert add_all(outcomes[at:upto], tried) == add_all(outcomes[at:upto], plain)
            tried.commit()
            assert tried.open_reason == plain.open_reason
            at = upto


def test_breaker_keeps_no_more_records_than_its_limits() -> None:
    breaker = breaker_of(window_records=50, consecutive_max=20, ratio_max=1.0)
    for number, outcome in enumerate(make_outcomes("Da" * 500 + "D" * 19)):
        breaker.add(outcome)
        counts = breaker._counts
        assert len(counts.records) <= min(50, number + 1)
        assert len(counts.dead) <= len(counts.records)
        assert len(counts.in_row) <= 20
    assert breaker.open_reason == ""


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (
            {"consecutive_max": 2},
            "dead letters of 2 conversations in a row reached CC_DEAD_LETTERS_CONSECUTIVE_MAX",
        ),
        (
            {"window_records": 2},
            "dead letters of 2 out of 2 conversations in 2 records reached CC_DEAD_LETTERS_RATIO_MAX",
        ),
    ],
)
def test_open_reason_names_the_setting_and_the_last_reason(changed: dict[str, int], cause: str) -> None:
    breaker = breaker_of(**changed)
    add_all(make_outcomes("DD"), breaker)
    assert breaker.open_reason == f"{cause}; the last reason was bad_json"
