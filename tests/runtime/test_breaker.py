"""When a lane stops because of too many dead letters."""

import pytest

from consumer.runtime.breaker import Breaker
from tests.runtime.scenes import outcome, settings_of

DISPOSITIONS = {"a": "applied", "u": "unchanged", "i": "ignored", "D": "dead_lettered"}


def opened_at(shown: str, breaker: Breaker) -> int | None:
    """Add outcomes (a, u, i, D); the number of the one at which the breaker opened."""
    found = None
    for number, each in enumerate(shown, 1):
        reason = "bad_json" if each == "D" else ""
        if breaker.add(outcome(DISPOSITIONS[each], reason)) and found is None:
            found = number
    return found


@pytest.mark.parametrize(
    ("shown", "number"),
    [("DD", None), ("DDD", 3), ("DDaDDuDD", None), ("aDDD", 4), ("DiDiiD", 6), ("DDiaD", None), ("i" * 9, None)],
)
def test_dead_letters_in_a_row(shown: str, number: int | None) -> None:
    breaker = Breaker(settings_of(dead_letters_consecutive_max=3, dead_letters_window_records=100))
    assert opened_at(shown, breaker) == number
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
    ],
)
def test_the_share_of_dead_letters_in_full_windows(ratio_max: float, shown: str, number: int | None) -> None:
    settings = settings_of(
        dead_letters_ratio_max=ratio_max, dead_letters_window_records=4, dead_letters_consecutive_max=99
    )
    assert opened_at(shown, Breaker(settings)) == number


def test_once_open_it_stays_open_with_its_first_cause() -> None:
    breaker = Breaker(settings_of(dead_letters_consecutive_max=2, dead_letters_window_records=3))
    opened_at("DD", breaker)
    cause = breaker.open_because
    assert all(breaker.add(outcome(DISPOSITIONS[each])) for each in "aiuDDDaaaa")
    assert breaker.open_because == cause


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (
            {"dead_letters_consecutive_max": 2},
            "2 dead letters in a row reached CC_DEAD_LETTERS_CONSECUTIVE_MAX; the last reason was bad_json",
        ),
        (
            {"dead_letters_window_records": 2},
            "2 dead letters in 2 records reached CC_DEAD_LETTERS_RATIO_MAX; the last reason was bad_json",
        ),
    ],
)
def test_the_cause_names_the_setting_and_the_last_reason(changed: dict[str, int], cause: str) -> None:
    breaker = Breaker(settings_of(**changed))
    opened_at("DD", breaker)
    assert breaker.open_because == cause
