"""The dashboards that are checked in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.generate.__main__ import MONITORING, generate
from deploy.generate.conversations import CONVERSATIONS
from deploy.generate.panels import Panel, fill_scope
from deploy.generate.pipeline import PIPELINE
from tests.deploy.promql import fill_variables, problems

DASHBOARDS = (CONVERSATIONS, PIPELINE)
PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard.panels()]
FILES = [MONITORING / "dashboards" / f"{name}.json" for name in ("conversations", "pipeline")]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels_of(file: Path) -> list[dict[str, Any]]:
    """The panels of a file, without headings."""
    panels: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


@pytest.mark.parametrize("path", generate(), ids=lambda path: str(path.name))
def test_checked_in_files_are_those_of_make_dashboards(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate()[path]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_names_exported_metrics(panel: Panel) -> None:
    for query in panel.queries:
        expr = fill_scope(query.expr)
        assert problems(fill_variables(expr)) == []
        assert expr.count("$job") == expr.count("$namespace") >= len(re.findall(r"conversation_|process_|\bup\b", expr))
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", expr)) <= {"$__rate_interval"}


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
        assert label == name
        assert problems(fill_variables(metric)) == []


def test_dashboards_have_different_ids() -> None:
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS)
