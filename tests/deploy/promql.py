"""The metrics and labels in a PromQL expression, and whether the service exports them."""

import re
from collections import Counter
from functools import cache
from itertools import product

import promql_parser
from msgspec import Struct
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, VectorSelector

from consumer.core.rules import Rules
from consumer.engine.commit_stats import CommitStats
from consumer.engine.state_store import StateStore
from consumer.telemetry.labels import MEDIA, STATES
from consumer.telemetry.metrics import Metrics

TARGET_LABELS = {"instance", "job", "namespace"}
"""Labels that Prometheus adds to every series of a scrape."""
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$namespace": ".*",
    "$job": ".*",
    "$media": ".*",
}
"""Examples of what Grafana puts in the place of the variables of a dashboard."""

_NEEDLESS = re.compile(r"^[\w.|-]*$")


class Expression(Struct, frozen=True):
    """The selectors of an expression, and the labels that it groups or joins by."""

    selectors: list[tuple[str, list[tuple[str, str, str]]]]
    """Name of the metric, and its matchers as (label, operator, value)."""
    grouped_by: set[str]


class Exported(Struct, frozen=True):
    """The series of a metric: its labels, and for closed sets their values."""

    labels: set[str]
    values: dict[str, set[str]]


def fill_variables(expr: str, **variables: str) -> str:
    """The expression as Grafana sends it."""
    for name, value in {**VARIABLES, **{f"${name}": value for name, value in variables.items()}}.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"an unknown variable in {expr!r}"
    return expr


def parse(expr: str) -> Expression:
    """Parse an expression. Raises ValueError with the place of a syntax error."""
    nodes: list[Expr] = []
    promql_parser.walk(promql_parser.parse(expr), nodes.append)
    return Expression(
        [
            (node.name or "", [(m.name, str(m.op).rpartition(".")[2], m.value) for m in node.matchers.matchers])
            for node in nodes
            if isinstance(node, VectorSelector)
        ],
        {label for node in nodes for label in _labels(node)},
    )


def problems(expr: str, recorded: dict[str, set[str]] | None = None) -> list[str]:
    """The names, labels and label values in an expression that are not exported, as sentences.

    `recorded` are the labels of recording rules by name. Raises ValueError if the expression does not parse.
    """
    sentences: list[str] = []
    known = {name: Exported(labels, {}) for name, labels in (recorded or {}).items()} | exported()
    expression = parse(expr)
    labels: set[str] = set()
    for name, matchers in expression.selectors:
        if name not in known:
            sentences.append(f"no metric {name!r}")
            continue
        metric = known[name]
        labels |= metric.labels
        for label, operator, value in matchers:
            if label not in metric.labels:
                sentences.append(f"{name} has no label {label!r}")
            elif label in metric.values and (operator in {"Equal", "NotEqual"} or _NEEDLESS.match(value)):
                wanted = {value} if operator in {"Equal", "NotEqual"} else set(value.split("|"))
                sentences += [f"{name} never has {label}={text!r}" for text in sorted(wanted - metric.values[label])]
    sentences += [f"no selector has the label {label!r}" for label in sorted(expression.grouped_by - labels)]
    return sentences


@cache
def exported() -> dict[str, Exported]:
    """Every series name that a scrape of a working worker can have, with `up`."""
    metrics, states = Metrics(), StateStore(Rules())
    states.live_index.states.update(product(MEDIA, STATES))
    metrics.restoring(0, 1)
    metrics.lane_opened(0, 0, 0.1)
    metrics.watch(lambda: {0: states})
    metrics.committed(0, CommitStats(asserted=Counter({("call", "", "alerting"): 1}), ages_ms=[1]), 0.1, 0, 0.0)
    series = {"up": Exported(TARGET_LABELS, {})}
    open_ended = {"partition", "version", "python", "from", "to"}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        declared = next(
            set(filter(None, metric.labels.split(", ")))
            for metric in metrics.describe_all()
            if metric.name.removesuffix("_total") == family.name
        )
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        for suffix in suffixes:
            name = family.name + suffix
            labels = declared | ({"le"} if suffix == "_bucket" else set())
            values = {
                label: {sample.labels[label] for sample in family.samples if sample.name == name}
                for label in labels - open_ended
            }
            series[name] = Exported(labels | TARGET_LABELS, {label: seen for label, seen in values.items() if seen})
    return series


def _labels(node: Expr) -> list[str]:
    match node:
        case AggregateExpr(modifier=modifier) if modifier is not None:
            return modifier.labels
        case BinaryExpr(modifier=modifier) if modifier is not None:
            matching = modifier.matching.labels if modifier.matching is not None else []
            return [*matching, *(modifier.group_labels or [])]
    return []
