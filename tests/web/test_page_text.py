"""How the live page writes what it shows."""

import pytest

from consumer.web import page_text
from consumer.web.page_text import duration, mark_up, moment, ranges, state_class
from consumer.worker import lane_status


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "–"),  # noqa: RUF001 - as shown
        (0, "0.0 s"),
        (1_550, "1.6 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h 0 min"),
        (90_061_000, "1 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(milliseconds: int | None, text: str) -> None:
    assert duration(milliseconds) == text


def test_ranges_are_short() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"  # noqa: RUF001 - as shown


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("alerting", "s-waiting"),
        ("connected", "s-live"),
        ("parked", "s-parked"),
        ("terminated", "s-ended"),
        ("hovering", "s-other"),
    ],
)
def test_states_of_a_kind_look_alike(state: str, name: str) -> None:
    assert state_class(state) == name


def test_every_phase_has_words() -> None:
    phases = (*lane_status.Phase.__args__, "rebalancing")  # type: ignore[attr-defined]
    assert set(page_text._PHASES) == set(phases)


def test_times_are_escaped() -> None:
    assert str(moment('"><script>')) == (
        '<time class="moment" datetime="&#34;&gt;&lt;script&gt;">&#34;&gt;&lt;script&gt; '
        '<span class="clock"></span></time>'
    )


def test_times_and_commands_of_a_sentence_are_marked() -> None:
    html = mark_up("<b> since 2026-01-01T10:00:00.000Z: `redrive --key <i>`.")
    assert html == f"&lt;b&gt; since {moment('2026-01-01T10:00:00.000Z')}: <code>redrive --key &lt;i&gt;</code>."
