"""How much is logged of failed attempts."""

from collections.abc import Callable
from typing import Any

from consumer.web.access_log import LINES_MAX, WINDOW_S, FailureLog
from tests.fakes import Clock


def test_failures_are_logged_at_a_bounded_rate(log: Callable[[], list[Any]]) -> None:
    clock = Clock()
    failures = FailureLog(clock)
    for _ in range(5):
        for number in range(LINES_MAX + 3):
            failures.note(f"peer-{number}", "form")
    assert [line["peer"] for line in log()] == [f"peer-{number}" for number in range(LINES_MAX)]
    assert {line["repeated"] for line in log()} == {0}
    clock.now_s += WINDOW_S
    failures.note("peer-0", "header")
    line = log()[-1]
    assert (line["peer"], line["way"], line["repeated"], line["others"]) == ("peer-0", "header", 4, 15)
