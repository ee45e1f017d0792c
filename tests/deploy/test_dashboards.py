"""The dashboards that are checked in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.generate.__main__ import MONITORING, generate
from deploy.generate.conversations import CONVERSATIONS
from deploy.generate.marks import MARKS
from deploy.generate.panels import Mark, Panel, fill_scope
from deploy.generate.pipeline import PIPELINE
from tests.deploy.promql import fill_variables, parse, problems
from tests.deploy.test_rules import ALERTS, RECORDED, RULES

DASHBOARDS = (CONVERSATIONS, PIPELINE)
PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard.panels()]
FILES = [MONITORING / "dashboards" / f"{name}.json" for name in ("conversations", "pipeline")]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels_of(file: Path) -> list[dict[str, Any]]:
    """The panels of a file, without headings."""
    panels: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def has_scope(expr: str) -> bool:
    """Whether every selector has the variables of the job."""
    selectors = len(re.findall(r"conversation_|process_|\bup\b", expr))
    return expr.count("$job") == expr.count("$namespace") >= selectors


def metrics_of(expr: str) -> set[str]:
    """The exported metrics that an expression is made of, by recording rules or directly."""
    recorded = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
    names = {name for name, _ in parse(fill_variables(expr)).selectors}
    return {
        re.sub("_(bucket|count)$", "", found)
        for name in names
        for found in (metrics_of(recorded[name]) if name in recorded else {name})
    }


@pytest.mark.parametrize("path", generate(), ids=lambda path: str(path.name))
def test_checked_in_files_are_those_of_make_dashboards(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate()[path]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_names_exported_metrics(panel: Panel) -> None:
    for query in panel.queries:
        expr = fill_scope(query.expr)
        assert problems(fill_variables(expr), RECORDED) == []
        assert has_scope(expr)
        shown, _, rank = expr.partition(" and topk(")
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", shown)) <= {"$__rate_interval"}
        assert set(re.findall(r"\[([^\]]*)\](?! @ end\(\))", rank)) == set()


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.name)
def test_an_annotation_names_exported_metrics(mark: Mark) -> None:
    expr = fill_scope(mark.expr)
    assert problems(fill_variables(expr)) == []
    assert has_scope(expr)
    assert set(re.findall(r"{{(\w+)}}", mark.text)) <= parse(fill_variables(expr)).grouped_by


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_no_panel_has_a_line_for_each_partition_or_worker(panel: Panel) -> None:
    """There may be 64 of them."""
    for query in panel.queries:
        many = "{{partition}}" in query.legend or "{{instance}}" in query.legend
        assert many == ("topk(5, " in query.expr), query.expr


def test_every_alert_is_linked_from_panels_that_show_what_it_is_about() -> None:
    assert {name for panel in PANELS for name in panel.alerts} == ALERTS.keys()
    for panel in PANELS:
        shown = {metric for query in panel.queries for metric in metrics_of(fill_scope(query.expr))}
        for name in panel.alerts:
            assert shown & metrics_of(ALERTS[name]["expr"]), (panel.title, name)


def test_a_link_leads_to_the_section_that_the_alert_names() -> None:
    (runbook,) = [rule["labels"]["url"] for rule in RULES if rule.get("record") == "url:conversation_runbook:info"]
    links = {
        link["title"]: link["url"].replace("${runbook:raw}", runbook)
        for file in FILES
        for panel in panels_of(file)
        for link in panel.get("links", ())
    }
    assert links == {f"Runbook: {name}": rule["annotations"]["runbook_url"] for name, rule in ALERTS.items()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_deploys_rebalances_and_the_breaker_are_annotations(file: Path) -> None:
    annotations = json.loads(file.read_text(encoding="utf-8"))["annotations"]["list"]
    assert [annotation["name"] for annotation in annotations] == ["Deploys", "Rebalances", "Breaker"]
    assert [annotation["expr"] for annotation in annotations] == [fill_scope(mark.expr) for mark in MARKS]
    assert [annotation["datasource"] for annotation in annotations] == [DATASOURCE] * len(MARKS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_has_its_texts_and_data_source(file: Path) -> None:
    panels = panels_of(file)
    assert len({panel["title"] for panel in panels}) == len(panels) > 10
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == DATASOURCE
        assert [target["datasource"] for target in panel["targets"]] == [DATASOURCE] * len(panel["targets"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_do_not_overlap(file: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_data_source_and_the_job_are_chosen_in_grafana(file: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert {"datasource", "namespace", "job"} <= variables.keys()
    assert variables["datasource"]["type"] == "datasource"
    for name in variables.keys() - {"datasource"}:
        metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variables[name]["query"]).groups()  # type: ignore[union-attr]
        assert label == {"runbook": "url"}.get(name, name)
        assert problems(fill_variables(metric), RECORDED) == []


def test_dashboards_have_different_ids() -> None:
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS)
