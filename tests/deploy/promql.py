"""What a PromQL expression asks for, and whether the service has it."""

import re
from collections import Counter
from functools import cache

import promql_parser
from msgspec import Struct
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, VectorSelector

from consumer.adapters.monitoring.metrics import Metrics
from consumer.runtime.census import Census
from consumer.runtime.tally import Tally

TARGET_LABELS = {"instance", "job", "namespace"}
"""What Prometheus adds to every series of a scrape."""
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$namespace": ".*",
    "$job": ".*",
    "$media": ".*",
}
"""What Grafana puts in the place of the variables of a dashboard, for example."""

_NEEDLESS = re.compile(r"^[\w.|-]*$")


class Asked(Struct, frozen=True):
    """What an expression selects and the labels that it names otherwise."""

    selectors: list[tuple[str, list[tuple[str, str, str]]]]
    """Name of the metric, and its matchers as (label, operator, value)."""
    grouped_by: set[str]


class Exported(Struct, frozen=True):
    """The series of a metric: its labels, and for closed sets their values."""

    labels: set[str]
    values: dict[str, set[str]]


def filled(expr: str, **variables: str) -> str:
    """The expression as Grafana sends it."""
    for name, value in {**VARIABLES, **{f"${name}": value for name, value in variables.items()}}.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"an unknown variable in {expr!r}"
    return expr


def asked(expr: str) -> Asked:
    """Raises ValueError with the place where the expression does not parse."""
    nodes: list[Expr] = []
    promql_parser.walk(promql_parser.parse(expr), nodes.append)
    return Asked(
        [
            (node.name or "", [(each.name, str(each.op).rpartition(".")[2], each.value) for each in _matchers(node)])
            for node in nodes
            if isinstance(node, VectorSelector)
        ],
        {label for node in nodes for label in _labels(node)},
    )


def problems(expr: str, recorded: dict[str, set[str]] | None = None) -> list[str]:
    """What is wrong with an expression: names, labels and label values that are not exported.

    `recorded` are the labels of recording rules by name. Raises ValueError if the expression does not parse.
    """
    found: list[str] = []
    known = {name: Exported(labels, {}) for name, labels in (recorded or {}).items()} | exported()
    said = asked(expr)
    labels: set[str] = set()
    for name, matchers in said.selectors:
        if name not in known:
            found.append(f"no metric {name!r}")
            continue
        metric = known[name]
        labels |= metric.labels
        for label, operator, value in matchers:
            if label not in metric.labels:
                found.append(f"{name} has no label {label!r}")
            elif label in metric.values and (operator in {"Equal", "NotEqual"} or _NEEDLESS.match(value)):
                wanted = {value} if operator in {"Equal", "NotEqual"} else set(value.split("|"))
                found += [f"{name} never has {label}={each!r}" for each in sorted(wanted - metric.values[label])]
    found += [f"nothing here has the label {label!r}" for label in sorted(said.grouped_by - labels)]
    return found


@cache
def exported() -> dict[str, Exported]:
    """Every series name that a scrape of a worker at work can have, `up` among them."""
    metrics = Metrics()
    metrics.restoring(0, 1)
    metrics.lane_opened(0, 0, 0.1)
    metrics.watch(0, Census(), lambda: (0, 0))
    metrics.committed(0, Tally(asserted=Counter({("call", "", "alerting"): 1}), ages_ms=[1]), 0.1, 0, 0.0)
    found = {"up": Exported(TARGET_LABELS, {})}
    open_ended = {"partition", "version", "python", "from", "to"}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        declared = next(
            set(filter(None, each.labels.split(", ")))
            for each in metrics.described()
            if each.name.removesuffix("_total") == family.name
        )
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        for suffix in suffixes:
            name = family.name + suffix
            labels = declared | ({"le"} if suffix == "_bucket" else set())
            values = {
                label: {sample.labels[label] for sample in family.samples if sample.name == name}
                for label in labels - open_ended
            }
            found[name] = Exported(labels | TARGET_LABELS, {label: seen for label, seen in values.items() if seen})
    return found


def _matchers(node: VectorSelector) -> list[promql_parser.Matcher]:
    return node.matchers.matchers


def _labels(node: Expr) -> list[str]:
    match node:
        case AggregateExpr(modifier=modifier) if modifier is not None:
            return modifier.labels
        case BinaryExpr(modifier=modifier) if modifier is not None:
            matching = modifier.matching.labels if modifier.matching is not None else []
            return [*matching, *(modifier.group_labels or [])]
    return []
