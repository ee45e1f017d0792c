"""Stream time, and which conversations are late by it."""

import pytest

from consumer.core.retention import STREAM_STEP_MAX_MS, advance, is_late
from consumer.core.rules import Rules
from tests.strategies import BASE_MS


@pytest.mark.parametrize(
    ("stream_ms", "snapshot_ms", "expected_ms"),
    [
        (None, BASE_MS, BASE_MS),
        (BASE_MS, BASE_MS - 1, BASE_MS),
        (BASE_MS, BASE_MS + STREAM_STEP_MAX_MS, BASE_MS + STREAM_STEP_MAX_MS),
        (BASE_MS, BASE_MS + STREAM_STEP_MAX_MS + 1, BASE_MS + STREAM_STEP_MAX_MS),
    ],
)
def test_stream_time_advances_by_at_most_an_hour(stream_ms: int | None, snapshot_ms: int, expected_ms: int) -> None:
    assert advance(stream_ms, snapshot_ms) == expected_ms


@pytest.mark.parametrize(("over_ms", "expected"), [(0, False), (1, True)])
def test_late_is_older_than_the_retention(over_ms: int, expected: bool) -> None:  # noqa: FBT001 - a column
    rules = Rules(retention_ended_s=60)
    assert is_late(BASE_MS, BASE_MS - 60_000 - over_ms, rules) == expected


def test_nothing_is_late_without_a_stream_time() -> None:
    assert not is_late(None, 0, Rules())
