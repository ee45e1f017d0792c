"""The page of all metrics."""

from collections import defaultdict

from consumer.telemetry.metrics import Metrics
from docs.generate.markdown import code, document, table

_INTRO = """
Served at `/metrics` of the admin port, in the formats of Prometheus and OpenMetrics. Records are counted when their
commit has succeeded, so that consumed = applied + unchanged + ignored + dead_lettered at any time. The series of a
partition are removed when the worker loses the partition.

The queries that matter, and what to do about each alert, are in [the runbook](../../deploy/RUNBOOK.md).
"""
_VALUES = """
## Label values

Label values come from closed sets; everything else counts as `other`. These series exist, with 0, from the start.
`partition` is the number of an input partition; `state`, `from` and `to` are states, and appear when there is a
communication or a transition that has them.

While partitions move, two scrapes may show the same partition of two workers. Count a partition once, by the series of
the highest `conversation_partition_generation`, as the rule `namespace_job_media_state:conversation_communications:sum`
does.
"""


def page() -> str:
    """`metrics.md`."""
    metrics = Metrics()
    described = [
        (code(metric.name), metric.type, code(*filter(None, metric.labels.split(", "))), metric.documentation)
        for metric in metrics.describe_all()
    ]
    return document(
        "Metrics",
        _INTRO,
        table(("metric", "type", "labels", "meaning"), described),
        _VALUES,
        table(("label", "values", "metrics"), _label_values(metrics)),
    )


def _label_values(metrics: Metrics) -> list[tuple[str, str, str]]:
    """The values of each label at the start, but for `le` and those that describe the installation."""
    values: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        for sample in family.samples if family.type != "info" else ():
            for label, value in sample.labels.items():
                if label != "le":
                    values[label, name][value] = None
    metrics_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (label, name), found in values.items():
        metrics_of[label, ", ".join(code(value) if value else "(empty)" for value in found)].append(name)
    return sorted((code(label), listed, code(*sorted(names))) for (label, listed), names in metrics_of.items())
