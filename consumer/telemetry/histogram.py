"""A Prometheus histogram that takes milliseconds in bulk: an observation costs a bisection and an addition."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry


class BulkHistogram(Collector):
    """One histogram in seconds with at most one label. `bounds_s` are upper bounds, ascending, without infinity."""

    def __init__(
        self, name: str, documentation: str, bounds_s: Sequence[float], registry: CollectorRegistry, label: str = ""
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds_ms = tuple(bound_s * 1_000 for bound_s in bounds_s)
        self._bounds = (*(str(float(bound_s)) for bound_s in bounds_s), "+Inf")
        self._counts: dict[str, list[int]] = {}
        self._sums_ms: dict[str, float] = {}
        registry.register(self)

    def initialise(self, values: Iterable[str] = ("",)) -> None:
        """Export a series for every one of these label values from the start."""
        for value in values:
            self._counts.setdefault(value, [0] * len(self._bounds))
            self._sums_ms.setdefault(value, 0.0)

    def observe_ms(self, observations_ms: Sequence[float], label_value: str = "") -> None:
        """Count observations; a label value that was not initialised starts a series."""
        if label_value not in self._counts:
            self.initialise((label_value,))
        counts, bounds_ms = self._counts[label_value], self._bounds_ms
        for observation_ms in observations_ms:
            counts[bisect_left(bounds_ms, observation_ms)] += 1
        self._sums_ms[label_value] += sum(observations_ms)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The family without series: the registry checks that its names are free."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family with its current series."""
        family = self._family()
        for label_value, counts in self._counts.items():
            cumulative, buckets = 0, []
            for bound, count in zip(self._bounds, counts, strict=True):
                cumulative += count
                buckets.append((bound, float(cumulative)))
            family.add_metric([label_value] if self._label else [], buckets, self._sums_ms[label_value] / 1_000)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
