"""Declaring metrics, each with its description, so that the documentation lists what there is."""

import contextlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, disable_created_metrics

from consumer.adapters.monitoring.closed_counter import ClosedCounter
from consumer.adapters.monitoring.histogram import BulkHistogram
from consumer.adapters.monitoring.labels import PREFIX

_PROCESS: Final = (
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
)
"""What prometheus-client exports of the process, on Linux; its names and words."""


class Described(Struct, frozen=True, order=True):
    """One metric as the documentation lists it. `labels` are separated by commas."""

    name: str
    type: str
    labels: str
    documentation: str


class Families:
    """A registry, the metrics that are declared in it, and their descriptions."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the counters' series; resets are seen without them
        self.registry = CollectorRegistry()
        self.described = [Described(name, kind, "", documentation) for name, kind, documentation in _PROCESS]
        self._of_partitions: list[Gauge] = []
        ProcessCollector(registry=self.registry)

    def counter(
        self, name: str, documentation: str, labels: dict[str, tuple[str, ...]], initial: list[tuple[str, ...]]
    ) -> ClosedCounter:
        """A counter whose label values come from closed sets; the `initial` series start at 0."""
        self._describe(name, "counter", tuple(labels), documentation)
        counter = Counter(PREFIX + name, documentation, tuple(labels), registry=self.registry)
        return ClosedCounter(counter, tuple(labels.values()), initial)

    def histogram(
        self,
        name: str,
        documentation: str,
        bounds_s: Sequence[float],
        label: str = "",
        initial: Sequence[str] = ("",),
    ) -> BulkHistogram:
        """A histogram of seconds, with one label at most."""
        self._describe(name, "histogram", (label,) if label else (), documentation)
        histogram = BulkHistogram(PREFIX + name, documentation, bounds_s, self.registry, label)
        histogram.initialise(initial)
        return histogram

    def gauge(self, name: str, documentation: str, label: str = "") -> Gauge:
        """A gauge, with one label at most."""
        labels = (label,) if label else ()
        self._describe(name, "gauge", labels, documentation)
        return Gauge(PREFIX + name, documentation, labels, registry=self.registry)

    def partition_gauge(self, name: str, documentation: str) -> Gauge:
        """A gauge whose series go with `forget`."""
        gauge = self.gauge(name, documentation, "partition")
        self._of_partitions.append(gauge)
        return gauge

    def info(self, name: str, documentation: str, values: dict[str, str]) -> None:
        """A gauge that is 1, with what does not change in its labels."""
        self._describe(f"{name}_info", "gauge", tuple(values), documentation)
        Info(PREFIX + name, documentation, registry=self.registry).info(values)

    def forget(self, partition: int) -> None:
        """Remove the series of a partition."""
        for gauge in self._of_partitions:
            with contextlib.suppress(KeyError):  # older clients raise for a series that never began
                gauge.remove(partition)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], documentation: str) -> None:
        self.described.append(Described(PREFIX + name, kind, ", ".join(labels), documentation))
