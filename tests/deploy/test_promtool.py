"""The one planted mistake that no API server sees: an expression that is none. promtool does."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import Manifest, of_kind, one
from tests.deploy.mistakes import MISTAKES, planted

(MISTAKE,) = [each for each in MISTAKES if each.found_by == "rules"]
Rendered = dict[str, list[Manifest]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")
def test_a_broken_expression_is_refused_and_nothing_else(rendered: Rendered, tmp_path: Path) -> None:
    good = rendered["component-monitoring"]
    accepted = _checked(one(good, "PrometheusRule"), tmp_path)
    assert accepted.returncode == 0, accepted.stderr
    refused = _checked(one(planted(MISTAKE, good), "PrometheusRule"), tmp_path)
    assert refused.returncode != 0
    assert MISTAKE.told in refused.stdout + refused.stderr


def test_the_api_server_does_not_see_it(api_server: ControlPlane, rendered: Rendered) -> None:
    namespace = api_server.namespace("broken-expression")
    bad = of_kind(planted(MISTAKE, rendered["component-monitoring"]), "PrometheusRule")
    assert api_server.apply(bad, f"--namespace={namespace}", "--dry-run=server").accepted


def _checked(rule: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    return subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
