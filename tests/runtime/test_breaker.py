"""When a lane stops because of too many dead letters."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step
from consumer.runtime.breaker import Breaker
from tests.core.play import play
from tests.runtime.scenes import call, rubbish, settings_of
from tests.strategies import make_record

DISPOSITIONS = {"a": "applied", "u": "unchanged", "i": "ignored", "D": "dead_lettered"}
NUMBERS = iter(range(10**9))


def outcomes(shown: str) -> list[Outcome]:
    """Outcomes (a, u, i, D), each of a conversation of its own unless a digit says of which it is."""
    found: list[Outcome] = []
    for each in shown:
        if each.isdigit():
            found[-1] = named(found[-1], each)
        else:
            reason = "bad_json" if each == "D" else ""
            found.append(named(Outcome(DISPOSITIONS[each], reason), f"n{next(NUMBERS)}"))  # type: ignore[arg-type]
    return found


def named(outcome: Outcome, conversation_id: str) -> Outcome:
    if outcome.disposition == "dead_lettered":
        return replace(outcome, named=conversation_id)
    return replace(outcome, conversation_id=conversation_id)


def opened_at(shown: Iterable[Outcome], breaker: Breaker) -> int | None:
    """Add outcomes; the number of the one at which the breaker opened."""
    found = None
    for number, each in enumerate(shown, 1):
        if breaker.add(each) and found is None:
            found = number
    return found


def breaker_of(**changed: Any) -> Breaker:
    return Breaker(settings_of(**{"dead_letters_window_records": 100, "dead_letters_consecutive_max": 99} | changed))


def dead(record: Record, rules: Rules | None = None) -> Outcome:
    """What becomes of a record that cannot be used."""
    outcome = step(record, rules or Rules(), None, lambda _: None)
    assert outcome.disposition == "dead_lettered"
    return outcome


@pytest.mark.parametrize(
    ("shown", "number"),
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
def test_dead_letters_in_a_row(shown: str, number: int | None) -> None:
    breaker = breaker_of(dead_letters_consecutive_max=3)
    assert opened_at(outcomes(shown), breaker) == number
    assert bool(breaker.open_because) == (number is not None)


@pytest.mark.parametrize(
    ("ratio_max", "shown", "number"),
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
def test_the_share_of_dead_letters_in_full_windows(ratio_max: float, shown: str, number: int | None) -> None:
    breaker = breaker_of(dead_letters_ratio_max=ratio_max, dead_letters_window_records=4)
    assert opened_at(outcomes(shown), breaker) == number


def test_a_few_conversations_do_not_make_a_window_bad() -> None:
    """At night there may be nothing else in a partition: nine of a thousand records are few, ten are not."""
    for conversations, number in ((9, None), (10, 1_000)):
        breaker = breaker_of(dead_letters_window_records=1_000)
        assert opened_at(outcomes("".join(f"D{each % conversations}" for each in range(5_000))), breaker) == number


def test_a_conversation_grown_too_large_opens_nothing() -> None:
    """However many of its snapshots come, alone in its partition; and what had opened it before does open it."""
    rules = Rules(communications_max=1)
    records = [call(each, "connected", each, communication_id=f"m{each}") for each in range(2_000)]
    played = play(records, rules)
    assert {each.reason for each in played.outcomes[1:]} == {"too_large"}
    breaker = Breaker(settings_of())
    assert opened_at(played.outcomes, breaker) is None
    assert opened_at([dead(rubbish(each)) for each in range(200)], breaker) == 200


@pytest.mark.parametrize("reason", ["late", "too_large"])
def test_a_reason_that_blames_nobody_does_not_count(reason: str) -> None:
    """Neither as a dead letter nor as a record that could be used."""
    breaker = breaker_of(dead_letters_consecutive_max=3, dead_letters_window_records=10)
    blameless = [replace(each, reason=reason) for each in outcomes("D" * 50)]
    assert opened_at(blameless, breaker) is None
    assert opened_at([*outcomes("DD"), *blameless, *outcomes("D")], breaker) == 53


@pytest.mark.parametrize("key", [None, ""])
def test_rubbish_without_keys_counts_one_by_one(key: str | None) -> None:
    records = [make_record(b"no JSON", key=key, offset=each) for each in range(200)]
    assert opened_at(map(dead, records), Breaker(settings_of())) == 200
    breaker = Breaker(settings_of(dead_letters_consecutive_max=10_000))
    mixed = [each for record in records * 4 for each in (dead(record), *outcomes("a"), dead(record))]
    assert opened_at(mixed, breaker) == 1_000


@pytest.mark.parametrize("key", [None, "relay-7"])
def test_a_wrong_key_counts_for_the_conversation_shown(key: str | None) -> None:
    """A topic under one wrong key, or under none, opens it; a conversation under it alone does not."""
    several = [make_record({"id": f"c{each}", "participants": []}, key=key) for each in range(200)]
    assert opened_at(map(dead, several), Breaker(settings_of())) == 200
    one = [make_record({"id": "c1", "participants": []}, key=key)] * 2_000
    assert opened_at(map(dead, one), Breaker(settings_of())) is None


def test_an_unreadable_key_names_a_conversation_too() -> None:
    records = [replace(rubbish(each), key=b"\xff%d" % (each % 100)) for each in range(2_000)]
    assert opened_at(map(dead, records), Breaker(settings_of(dead_letters_consecutive_max=100))) == 100
    assert opened_at(map(dead, records), Breaker(settings_of(dead_letters_consecutive_max=101))) == 1_000


def test_once_open_it_stays_open_with_its_first_cause() -> None:
    breaker = breaker_of(dead_letters_consecutive_max=2, dead_letters_window_records=3)
    opened_at(outcomes("DD"), breaker)
    cause = breaker.open_because
    assert all(breaker.add(each) for each in outcomes("aiuDDDaaaa"))
    assert breaker.open_because == cause


def test_a_rollback_forgets_what_was_not_committed() -> None:
    """Whatever is tried and fails in between, it opens where it would have opened without."""
    chance = random.Random(7)
    for _ in range(300):
        shown = outcomes("".join(chance.choice(["D1", "D2", "D3", "D", "D", "a1", "i"]) for _ in range(40)))
        limits = {"dead_letters_consecutive_max": 5, "dead_letters_window_records": 8}
        plain, tried, at = breaker_of(**limits), breaker_of(**limits), 0
        while at < len(shown) and not plain.open_because:
            upto = at + chance.randint(1, 12)
            for _ in range(chance.randint(0, 2)):
                opened_at(outcomes("D" * 4) if chance.random() < 0.5 else shown[at:upto], tried)
                tried.rollback()
                assert tried.open_because == ""
            assert opened_at(shown[at:upto], tried) == opened_at(shown[at:upto], plain)
            tried.commit()
            assert tried.open_because == plain.open_because
            at = upto


def test_it_keeps_no_more_than_its_limits() -> None:
    breaker = breaker_of(dead_letters_window_records=50, dead_letters_consecutive_max=20, dead_letters_ratio_max=1.0)
    for number, each in enumerate(outcomes("Da" * 500 + "D" * 19)):
        breaker.add(each)
        counts = breaker._counts
        assert len(counts.records) <= min(50, number + 1)
        assert len(counts.dead) <= len(counts.records)
        assert len(counts.in_row) <= 20
    assert breaker.open_because == ""


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (
            {"dead_letters_consecutive_max": 2},
            "dead letters of 2 conversations in a row reached CC_DEAD_LETTERS_CONSECUTIVE_MAX",
        ),
        (
            {"dead_letters_window_records": 2},
            "dead letters of 2 out of 2 conversations in 2 records reached CC_DEAD_LETTERS_RATIO_MAX",
        ),
    ],
)
def test_the_cause_names_the_setting_and_the_last_reason(changed: dict[str, int], cause: str) -> None:
    breaker = breaker_of(**changed)
    opened_at(outcomes("DD"), breaker)
    assert breaker.open_because == f"{cause}; the last reason was bad_json"
