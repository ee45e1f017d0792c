"""A dashboard as plain values, and its JSON by grafana-foundation-sdk.

1. Queries never name a data source or a job: both are variables, and `$scope` stands for the selector of the latter.
2. Panels stand in reading order; a row of the grid is `GRID` wide.
"""

import json
from collections.abc import Sequence
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
"""What every selector of a dashboard holds."""
TAG: Final = "conversation-consumer"

_DATASOURCE: Final = values.DataSourceRef("prometheus", "${datasource}")
_GREEN, _ORANGE, _RED = "green", "orange", "red"


class Query(Struct, frozen=True):
    """A PromQL expression and the legend of its series, with labels as `{{label}}`."""

    expr: str
    legend: str = "__auto"


class Panel(Struct, frozen=True, kw_only=True):
    """One panel. `unit` is Grafana's id of it; `warn` and `alarm` are the values from which it changes its colour."""

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
    """What is shown where there is no data, if that has a meaning."""
    warn: float | None = None
    alarm: float | None = None


class Section(Struct, frozen=True):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(Struct, frozen=True, kw_only=True):
    """A whole dashboard; `choices` are labels of `conversation_communications` to choose series by."""

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    choices: tuple[str, ...] = ()

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
        .with_variable(_choice("namespace", "conversation_build_info"))
        .with_variable(_choice("job", "conversation_build_info"))
    )
    for label in dashboard.choices:
        builder.with_variable(_choice(label, f"conversation_communications{{{SCOPE}}}"))
    for section in dashboard.sections:
        assert sum(panel.width for panel in section.panels) % GRID == 0, f"{section.title!r} does not fill its rows"
        builder.with_row(builders.Row(section.title))
        for panel in section.panels:
            builder.with_panel(_built(panel))
    built = builder.build()
    for number, each in enumerate(built.panels or (), 1):
        each.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _choice(label: str, metric: str) -> builders.QueryVariable:
    """A variable over the values of a label; at first all of them, also where the label is missing."""
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


_Built = timeseries.Panel | stat.Panel | bargauge.Panel


def _built(panel: Panel) -> _Built:
    drawn: _Built
    match panel.kind:
        case "number":
            drawn = (
                stat.Panel()
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .graph_mode(values.BigValueGraphMode.AREA)
                .color_mode(values.BigValueColorMode.VALUE)
            )
        case "bars":
            drawn = (
                bargauge.Panel()
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .orientation(values.VizOrientation.HORIZONTAL)
                .display_mode(values.BarGaugeDisplayMode.BASIC)
                .min(0)
            )
        case "lines" | "stacked":
            drawn = _over_time(panel)
    drawn.title(panel.title).description(panel.description).unit(panel.unit).datasource(_DATASOURCE)
    drawn.span(panel.width).height(panel.height).thresholds(_thresholds(panel.warn, panel.alarm))
    if panel.decimals is not None:
        drawn.decimals(panel.decimals)
    if panel.ceiling is not None:
        drawn.max(panel.ceiling)
    if panel.none:
        drawn.no_value(panel.none)
    for ref, query in zip("ABCDEFGH", panel.queries, strict=False):
        drawn.with_target(_target(ref, query, instant=panel.kind == "bars"))
    return drawn


def _over_time(panel: Panel) -> timeseries.Panel:
    drawn = (
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
        drawn.stacking(common.StackingConfig().mode(values.StackingMode.NORMAL))
    if panel.warn is not None or panel.alarm is not None:
        drawn.thresholds_style(common.GraphThresholdsStyleConfig().mode(values.GraphThresholdsStyleMode.DASHED))
    return drawn


def _target(ref: str, query: Query, *, instant: bool) -> Dataquery:
    target = Dataquery().ref_id(ref).expr(scoped(query.expr)).legend_format(query.legend).datasource(_DATASOURCE)
    return target.instant() if instant else target.range()


def scoped(expr: str) -> str:
    """The expression with its scope in place."""
    return expr.replace("$scope", SCOPE)


def _thresholds(warn: float | None, alarm: float | None) -> builders.ThresholdsConfig:
    steps = [models.Threshold(None, _GREEN)]
    steps += [models.Threshold(warn, _ORANGE)] if warn is not None else []
    steps += [models.Threshold(alarm, _RED)] if alarm is not None else []
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def quantiles(metric: str, by: str = "", **shown: float) -> tuple[Query, ...]:
    """Quantiles of a histogram, by a label or over all; `shown` gives each its name, such as `p99=0.99`."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}[$__rate_interval])))", f"{legend}{name}"
        )
        for name, quantile in shown.items()
    )


def one_of(states: Sequence[str]) -> str:
    """A regular expression for a label that is one of these."""
    return "|".join(states)
