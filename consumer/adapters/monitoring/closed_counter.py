"""A counter with a bounded number of series, whatever arrives."""

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import Counter

from consumer.adapters.monitoring.labels import OTHER


class ClosedCounter:
    """A counter whose label values are folded to closed sets, each with `other` in it if it can be exceeded.

    Only children of folded values are kept, so their number is bounded whatever arrives.
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
        """Count `amount` of one combination of label values."""
        (self._children.get(values) or self._child(values)).inc(amount)

    def add_all(self, counts: Counts[tuple[str, str]] | Counts[tuple[str, str, str]]) -> None:
        """Count by several labels."""
        for values, count in counts.items():
            self.add(values, count)

    def add_each(self, counts: Counts[str]) -> None:
        """Count by the one label."""
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
