"""A counter whose number of series is bounded, whatever label values arrive."""

from collections import Counter as Counts
from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import Counter

from consumer.telemetry.labels import OTHER

_Value = TypeVar("_Value", bound=str)
_Values = TypeVar("_Values", bound=tuple[str, ...])


class ClosedCounter:
    """Folds label values into closed sets: a value that is not in its set counts as `other`.

    It caches a child for every combination of folded values, of which there are only so many.
    """

    def __init__(
        self, counter: Counter, allowed: tuple[tuple[str, ...], ...], initial: Sequence[tuple[str, ...]]
    ) -> None:
        self._counter = counter
        self._allowed = tuple(frozenset(values) for values in allowed)
        self._children: dict[tuple[str, ...], Counter] = {}
        for values in initial:
            self._child(values)

    def add(self, values: tuple[str, ...], amount: float = 1) -> None:
        """Add `amount` to the series of these label values."""
        (self._children.get(values) or self._child(values)).inc(amount)

    def add_all(self, counts: Counts[_Values]) -> None:
        """Add counts that are keyed by the values of all labels."""
        for values, count in counts.items():
            self.add(values, count)

    def add_by_value(self, counts: Counts[_Value]) -> None:
        """Add counts that are keyed by the value of the only label."""
        for value, count in counts.items():
            self.add((value,), count)

    def _child(self, values: tuple[str, ...]) -> Counter:
        folded = tuple(
            value if value in allowed else OTHER for value, allowed in zip(values, self._allowed, strict=True)
        )
        child = self._children.get(folded)
        if child is None:
            child = self._children[folded] = self._counter.labels(*folded) if folded else self._counter
        return child
