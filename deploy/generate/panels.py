"""A dashboard as plain values, and its JSON by grafana-foundation-sdk.

1. Queries name neither a data source nor a job: both are variables, and `$scope` in a query is the selector of the job.
2. Panels are in reading order; a row of the grid is `GRID` wide.
3. Links to the runbook begin with the variable `runbook`, which Prometheus knows from a recording rule.
"""

import json
from collections.abc import Callable, Sequence
from typing import Final, Literal

from grafana_foundation_sdk.builders import bargauge, common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as models
from msgspec import Struct

GRID: Final = 24
SCOPE: Final = 'namespace=~"$namespace", job=~"$job"'
"""The part that every selector of a dashboard has."""
TAG: Final = "conversation-consumer"
TOP: Final = 5
"""How many partitions or workers a panel shows that would show every one of them."""
MARK_STEP: Final = "60s"
"""How often Grafana looks for annotations, and the window of their expressions."""

_DATASOURCE: Final = values.DataSourceRef("prometheus", "${datasource}")
_GREEN, _ORANGE, _RED = "green", "orange", "red"


class Query(Struct, frozen=True):
    """A PromQL expression and the legend of its series, with labels as `{{label}}`."""

    expr: str
    legend: str = "__auto"


class Panel(Struct, frozen=True, kw_only=True):
    """One panel. `unit` is an id of Grafana; `warn` and `alarm` are the values at which the colour changes."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stacked", "number", "bars"] = "lines"
    width: int = 8
    height: int = 7
    decimals: int | None = None
    ceiling: float | None = None
    """The end of the axis."""
    none: str = ""
    """The text without data, if that has a meaning."""
    warn: float | None = None
    alarm: float | None = None
    alerts: tuple[str, ...] = ()
    """The alerts on what it shows: it links to their sections of the runbook."""


class Mark(Struct, frozen=True):
    """An annotation: a mark at the times at which an expression has a series. `text` has labels as `{{label}}`."""

    name: str
    expr: str
    text: str
    color: str


class Section(Struct, frozen=True):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(Struct, frozen=True, kw_only=True):
    """A whole dashboard; `choices` are labels of `conversation_corrections_total` that become variables."""

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    choices: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()

    def panels(self) -> list[Panel]:
        """All panels in reading order."""
        return [panel for section in self.sections for panel in section.panels]


def as_json(dashboard: Dashboard) -> str:
    """The dashboard as Grafana imports it."""
    builder = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG])
        .timezone("utc")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("conversation-consumer")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_build_variable("namespace", "conversation_build_info"))
        .with_variable(_build_variable("job", "conversation_build_info"))
    )
    for label in dashboard.choices:
        builder.with_variable(_build_variable(label, f"conversation_corrections_total{{{SCOPE}}}"))
    builder.with_variable(_build_runbook_variable())
    for mark in dashboard.marks:
        builder.annotation(_build_annotation(mark))
    for section in dashboard.sections:
        assert sum(panel.width for panel in section.panels) % GRID == 0, f"{section.title!r} does not fill its rows"
        builder.with_row(builders.Row(section.title))
        for panel in section.panels:
            builder.with_panel(_build(panel))
    document = builder.build()
    for number, item in enumerate(document.panels or (), 1):
        item.id_val = number
    return json.dumps(document, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _build_variable(label: str, metric: str) -> builders.QueryVariable:
    """A variable over the values of a label. Its default matches all series, also those without the label."""
    return (
        builders.QueryVariable(label)
        .label(label.capitalize())
        .datasource(_DATASOURCE)
        .query(f"label_values({metric}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _build_runbook_variable() -> builders.QueryVariable:
    return (
        builders.QueryVariable("runbook")
        .hide(models.VariableHide.HIDE_VARIABLE)
        .datasource(_DATASOURCE)
        .query("label_values(url:conversation_runbook:info, url)")
        .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
    )


def _build_annotation(mark: Mark) -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name(mark.name)
        .datasource(_DATASOURCE)
        .enable(enable=True)
        .icon_color(mark.color)
        .expr(fill_scope(mark.expr))
        .step(MARK_STEP)
        .title_format(mark.name)
        .text_format(mark.text)
    )


_Builder = timeseries.Panel | stat.Panel | bargauge.Panel


def _build(panel: Panel) -> _Builder:
    builder: _Builder
    match panel.kind:
        case "number":
            builder = (
                stat.Panel()
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .graph_mode(values.BigValueGraphMode.AREA)
                .color_mode(values.BigValueColorMode.VALUE)
            )
        case "bars":
            builder = (
                bargauge.Panel()
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .orientation(values.VizOrientation.HORIZONTAL)
                .display_mode(values.BarGaugeDisplayMode.BASIC)
                .min(0)
            )
        case "lines" | "stacked":
            builder = _build_time_series(panel)
    builder.title(panel.title).description(panel.description).unit(panel.unit).datasource(_DATASOURCE)
    builder.span(panel.width).height(panel.height).thresholds(_thresholds(panel.warn, panel.alarm))
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    if panel.ceiling is not None:
        builder.max(panel.ceiling)
    if panel.alerts:
        builder.links([_build_link(alert) for alert in panel.alerts])
    if panel.none:
        builder.no_value(panel.none)
    for ref, query in zip("ABCDEFGH", panel.queries, strict=False):
        builder.with_target(_build_target(ref, query, instant=panel.kind == "bars"))
    return builder


def _build_link(alert: str) -> builders.DashboardLink:
    """The link to an alert's section of the runbook."""
    return (
        builders.DashboardLink(f"Runbook: {alert}")
        .type(models.DashboardLinkType.LINK)
        .url(f"${{runbook:raw}}#{alert.lower()}")
        .target_blank(target_blank=True)
    )


def _build_time_series(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(30 if panel.kind == "stacked" else 8)
        .show_points(values.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(values.LegendDisplayMode.LIST)
            .placement(values.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
    if panel.kind == "stacked":
        builder.stacking(common.StackingConfig().mode(values.StackingMode.NORMAL))
    if panel.warn is not None or panel.alarm is not None:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(values.GraphThresholdsStyleMode.DASHED))
    return builder


def _build_target(ref: str, query: Query, *, instant: bool) -> Dataquery:
    target = Dataquery().ref_id(ref).expr(fill_scope(query.expr)).legend_format(query.legend).datasource(_DATASOURCE)
    return target.instant() if instant else target.range()


def fill_scope(expr: str) -> str:
    """The expression with the selector in the place of `$scope`."""
    return expr.replace("$scope", SCOPE)


def _thresholds(warn: float | None, alarm: float | None) -> builders.ThresholdsConfig:
    steps = [models.Threshold(None, _GREEN)]
    steps += [models.Threshold(warn, _ORANGE)] if warn is not None else []
    steps += [models.Threshold(alarm, _RED)] if alarm is not None else []
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def quantiles(metric: str, by: str = "", **named: float) -> tuple[Query, ...]:
    """Queries of quantiles of a histogram, by a label or over all; `named` has them by name, as `p99=0.99`."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}[$__rate_interval])))", f"{legend}{name}"
        )
        for name, quantile in named.items()
    )


def share(part: str, whole: str) -> str:
    """The query of a share, which is 0 without a whole instead of missing."""
    return f"sum({part}) / (sum({whole}) > 0) or 0 * sum({whole})"


def top(expr: str, rank: str) -> str:
    """The series of `expr` that are highest by `rank`, which has the same labels and is the same at all times."""
    return f"{expr} and topk({TOP}, {rank})"


def top_over(build: Callable[[str], str]) -> str:
    """What `build` gives for the range of a rate, for the series that are highest over the selected time."""
    return top(build("[$__rate_interval]"), build("[$__range] @ end()"))


def top_rate(metric: str, by: str) -> str:
    """The query of a rate by a label, for the values with the highest mean in the selected time."""
    return top_over(lambda window: f"sum by ({by}) (rate({metric}{{$scope}}{window}))")


def top_gauge(metric: str, by: str) -> str:
    """The query of a gauge by a label, for the values with the highest peaks in the selected time."""
    peaks = f"max_over_time({metric}{{$scope}}[$__range] @ end())"
    return top(f"max by ({by}) ({metric}{{$scope}})", f"max by ({by}) ({peaks})")


def one_of(states: Sequence[str]) -> str:
    """A regular expression for a label with one of these values."""
    return "|".join(states)
