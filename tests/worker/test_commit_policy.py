"""When a commit is due, and how long a fetch waits for more records."""

import pytest

from consumer.engine.protocol import Staged
from consumer.worker.commit_policy import CommitPolicy
from tests.worker.scenes import settings_of

POLICY = CommitPolicy(interval_s=0.5, catching_up_s=2.0, records_max=10, bytes_max=1_000)


@pytest.mark.parametrize(
    ("staged", "now_s", "due"),
    [
        (Staged(0, 0, 0.0), 99.0, False),
        (Staged(0, 1_000, 0.0), 99.0, False),
        (Staged(9, 999, 7.0), 7.49, False),
        (Staged(1, 0, 7.0), 7.5, True),
        (Staged(10, 0, 7.0), 7.0, True),
        (Staged(1, 1_000, 7.0), 7.0, True),
    ],
)
def test_a_commit_is_due_by_time_records_or_bytes(staged: Staged, now_s: float, due: bool) -> None:  # noqa: FBT001
    assert POLICY.is_due(staged, now_s) is due


@pytest.mark.parametrize(
    ("staged", "now_s", "due"),
    [
        (Staged(9, 999, 7.0), 8.9, False),
        (Staged(9, 999, 7.0), 9.0, True),
        (Staged(10, 0, 7.0), 7.0, True),
        (Staged(1, 1_000, 7.0), 7.0, True),
    ],
)
def test_commit_while_catching_up_is_due_later_but_not_larger(staged: Staged, now_s: float, due: bool) -> None:  # noqa: FBT001
    assert POLICY.is_due(staged, now_s, catching_up=True) is due


@pytest.mark.parametrize(
    ("staged", "now_s", "poll_timeout_s"),
    [(Staged(), 7.0, 3.0), (Staged(1, 1, 7.0), 7.0, 0.5), (Staged(1, 1, 7.0), 7.25, 0.25), (Staged(1, 1, 7.0), 9.0, 0)],
)
def test_poll_timeout_ends_when_the_next_commit_is_due(staged: Staged, now_s: float, poll_timeout_s: float) -> None:
    assert POLICY.poll_timeout_s(staged, now_s, idle_s=3.0) == pytest.approx(poll_timeout_s)


@pytest.mark.parametrize(
    ("interval_ms", "lanes", "interval_s", "catching_up_s"),
    [
        (0, 1, 0.1, 1.0),
        (0, 2, 0.1, 1.0),
        (0, 3, 0.138, 1.0),
        (0, 100, 4.6, 4.6),
        (250, 1, 0.25, 1.0),
        (250, 100, 0.25, 1.0),
        (3_000, 1, 3.0, 3.0),
        (1, 1, 0.001, 1.0),
    ],
)
def test_interval_grows_with_the_lanes_unless_it_is_set(
    interval_ms: int, lanes: int, interval_s: float, catching_up_s: float
) -> None:
    settings = settings_of(commit_interval_ms=interval_ms, commit_records_max=7, commit_bytes_max=8)
    policy = CommitPolicy.of(settings, lanes)
    assert policy == CommitPolicy(pytest.approx(interval_s), pytest.approx(catching_up_s), 7, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("lanes", [3, 10, 40, 300])
def test_all_lanes_begin_fewer_than_22_transactions_a_second(lanes: int) -> None:
    assert lanes / CommitPolicy.of(settings_of(), lanes).interval_s < 22
