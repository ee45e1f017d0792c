"""A Prometheus histogram that is fed in bulk: an observation costs a bisection and an addition."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry


class BulkHistogram(Collector):
    """One histogram with at most one label. `buckets` are upper bounds in ascending order, without infinity."""

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry, label: str = ""
    ) -> None:
        self.name, self.documentation, self.label = name, documentation, label
        self._buckets = tuple(buckets)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def initialise(self, values: Iterable[str]) -> None:
        """Show a series for each label value from the start."""
        for value in values:
            self._counts.setdefault(value, [0] * (len(self._buckets) + 1))
            self._sums.setdefault(value, 0.0)

    def observe(self, observations: Iterable[float], label_value: str = "") -> None:
        """Count observations in the histogram's unit."""
        counts = self._counts.setdefault(label_value, [0] * (len(self._buckets) + 1))
        total = 0.0
        for observation in observations:
            counts[bisect_left(self._buckets, observation)] += 1
            total += observation
        self._sums[label_value] = self._sums.get(label_value, 0.0) + total

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The series as of now."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=[self.label] if self.label else [])
        bounds = [*(str(float(bound)) for bound in self._buckets), "+Inf"]
        for label_value, counts in self._counts.items():
            cumulative, buckets = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                cumulative += count
                buckets.append((bound, float(cumulative)))
            family.add_metric([label_value] if self.label else [], buckets, self._sums[label_value])
        yield family
