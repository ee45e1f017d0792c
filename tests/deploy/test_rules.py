"""The rules of Prometheus: valid, and every alert fires when it should and only then."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from consumer.settings import Settings
from deploy.generate.__main__ import MONITORING
from deploy.generate.conversations import CONVERSATIONS
from deploy.generate.panels import as_json
from deploy.generate.pipeline import FRESH_S, PIPELINE
from tests.deploy.promql import TARGET_LABELS, exported, parse, problems
from tests.deploy.tools import tool

RULE_FILES = sorted((MONITORING / "rules").glob("*.yaml"))
SCENES = sorted(Path(__file__).with_name("rules").glob("*.test.yaml"))
GROUPS = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: set(rule["record"].split(":")[0].split("_")) for rule in RULES if "record" in rule}
"""The labels of every recording rule, with which its name begins."""


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def run(*command: str) -> str:
    """The output of a command, which has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_finds_no_problem() -> None:
    output = run(tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))
    assert sum(int(count) for count in re.findall(r"(\d+) rules found", output)) == len(RULES)


@pytest.mark.slow
@pytest.mark.parametrize("file", SCENES, ids=lambda file: file.name)
def test_rules_give_what_is_expected_in_every_scene(file: Path) -> None:
    run(tool("promtool"), "test", "rules", str(file))


def test_every_alert_has_a_scene_with_and_one_without_it() -> None:
    """And where it waits, a scene that shows that it does not fire sooner."""
    fires: set[str] = set()
    waits: set[str] = set()
    never: set[str] = set()
    for file in SCENES:
        for scene in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            if "alert_rule_test" not in scene:
                continue
            (name,) = {check["alertname"] for check in scene["alert_rule_test"]}
            assert scene["name"].startswith(f"{name}: ")
            fired = [bool(check["exp_alerts"]) for check in scene["alert_rule_test"]]
            (fires if any(fired) else never).add(name)
            waits |= {name} if fired == [False, True] else set()
    assert fires == never == ALERTS.keys()
    assert waits == {name for name, rule in ALERTS.items() if "for" in rule}


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_every_rule_names_exported_metrics(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"], RECORDED) == []


@pytest.mark.parametrize("rule", ALERTS.values(), ids=name_of)
def test_an_alert_has_its_texts_and_a_runbook_section(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Conversation")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"].endswith(f"/deploy/RUNBOOK.md#{rule['alert'].lower()}")
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
    known = {label for metric in exported().values() for label in metric.labels} | TARGET_LABELS
    assert labels <= known | set(re.findall(r'\n\s*"(\w+)", "[^"]*", "", ""', rule["expr"]))


def test_alerts_and_dashboards_name_the_same_runbook() -> None:
    (runbook,) = [rule["labels"]["url"] for rule in RULES if rule.get("record") == "url:conversation_runbook:info"]
    assert {rule["annotations"]["runbook_url"].partition("#")[0] for rule in ALERTS.values()} == {runbook}


def test_a_poll_is_stalled_at_half_of_the_poll_interval() -> None:
    half_s = Settings(bootstrap_servers="b:1").max_poll_interval_ms / 2_000
    assert f"> {half_s:g}" in ALERTS["ConversationPollStalled"]["expr"]


def test_the_objective_is_a_bound_of_the_histogram() -> None:
    bounds = exported()["conversation_record_age_seconds_bucket"].values["le"]
    for rule in RULES:
        if rule.get("record", "").startswith("namespace_job:conversation_stale_records"):
            (bound,) = {value for _, matchers in parse(rule["expr"]).selectors for _, _, value in matchers}
            assert bound == str(FRESH_S)
            assert bound in bounds


@pytest.mark.parametrize("window", ["5m", "30m", "1h", "2h", "6h", "1d", "3d"])
def test_a_window_is_as_long_as_its_name_says(window: str) -> None:
    (rule,) = [
        rule for rule in RULES if rule.get("record") == f"namespace_job:conversation_stale_records:ratio_rate{window}"
    ]
    spans: set[timedelta] = set()

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            spans.add(node.range)

    promql_parser.walk(promql_parser.parse(rule["expr"]), note)
    assert spans == {promql_parser.parse_duration(window)}


def test_recorded_series_are_used() -> None:
    selected = {name for rule in ALERTS.values() for name, _ in parse(rule["expr"]).selectors}
    shown = {name for name in RECORDED for dashboard in (CONVERSATIONS, PIPELINE) if name in as_json(dashboard)}
    for_people = {"namespace_job:conversation_records:rate5m"}
    assert RECORDED.keys() - selected - shown == for_people
