"""Declarations of metrics with their descriptions, from which the documentation is generated."""

import contextlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, disable_created_metrics

from consumer.telemetry.closed_counter import ClosedCounter
from consumer.telemetry.histogram import BulkHistogram
from consumer.telemetry.labels import PREFIX

_PROCESS: Final = (
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
)
"""What prometheus-client exports of the process on Linux, in its words."""


class Described(Struct, frozen=True, order=True):
    """One metric as the documentation lists it. Commas separate the `labels`."""

    name: str
    type: str
    labels: str
    documentation: str


class Families:
    """A registry, and the descriptions of the metrics that are declared in it."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series of counters, and Prometheus notices a reset without them
        self.registry = CollectorRegistry()
        self.described = [Described(name, kind, "", documentation) for name, kind, documentation in _PROCESS]
        self._partition_gauges: list[Gauge] = []
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
        """A gauge with the label `partition`, whose series `forget` removes."""
        gauge = self.gauge(name, documentation, "partition")
        self._partition_gauges.append(gauge)
        return gauge

    def info(self, name: str, documentation: str, values: dict[str, str]) -> None:
        """A gauge that is always 1: its labels hold the values."""
        self._describe(f"{name}_info", "gauge", tuple(values), documentation)
        Info(PREFIX + name, documentation, registry=self.registry).info(values)

    def forget(self, partition: int) -> None:
        """Remove the series of a partition."""
        for gauge in self._partition_gauges:
            with contextlib.suppress(KeyError):  # older clients raise it for a series that does not exist
                gauge.remove(partition)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], documentation: str) -> None:
        self.described.append(Described(PREFIX + name, kind, ", ".join(labels), documentation))
