"""Narrow an outcome to the kind that a test expects."""

from consumer.core.outcomes import Applied, DeadLettered, Outcome


def expect_applied(outcome: Outcome) -> Applied:
    """Return the outcome; fails unless the record was applied."""
    assert isinstance(outcome, Applied), outcome
    return outcome


def expect_dead_letter(outcome: Outcome) -> DeadLettered:
    """Return the outcome; fails unless the record became a dead letter."""
    assert isinstance(outcome, DeadLettered), outcome
    return outcome
