"""The one planted mistake that no API server finds: an invalid expression. promtool does."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import Manifest, of_kind, one
from tests.deploy.mistakes import MISTAKES, plant

(MISTAKE,) = [mistake for mistake in MISTAKES if mistake.found_by == "rules"]
Rendered = dict[str, list[Manifest]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")
def test_only_a_broken_expression_is_refused(rendered: Rendered, tmp_path: Path) -> None:
    good = rendered["component-monitoring"]
    accepted = _check(one(good, "PrometheusRule"), tmp_path)
    assert accepted.returncode == 0, accepted.stderr
    refused = _check(one(plant(MISTAKE, good), "PrometheusRule"), tmp_path)
    assert refused.returncode != 0
    assert MISTAKE.message in refused.stdout + refused.stderr


def test_the_api_server_accepts_it(api_server: ControlPlane, rendered: Rendered) -> None:
    namespace = api_server.namespace("broken-expression")
    bad = of_kind(plant(MISTAKE, rendered["component-monitoring"]), "PrometheusRule")
    assert api_server.apply(bad, f"--namespace={namespace}", "--dry-run=server").accepted


def _check(rule: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    return subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
