"""The workflow of the project's future home: pinned, with the least permissions, and of commands that exist."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.binaries import TOOLS
from tests.deploy.manifests import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit(path: Any) -> None:
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert used
    assert [each for each in used if not PINNED.match(each)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_read_permissions_and_a_time_limit_and_keep_no_credentials(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert set(job["permissions"].values()) == {"read"}
        assert job["timeout-minutes"]
        (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert checkout["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_exists(path: Any) -> None:
    targets = set(re.findall(r"run: .*\bmake ([a-z-]+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert [each for each in targets if not re.search(rf"^{each}:", makefile, re.MULTILINE)] == []


def test_actionlint_has_nothing_to_say() -> None:
    tools = TOOLS.cached()
    if tools is None:
        pytest.skip("actionlint is not in the cache: `make deploy-check` builds it")
    ran = subprocess.run(
        [tools / "actionlint", "-no-color", *WORKFLOWS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout


def test_dependabot_looks_into_folders_that_have_something_to_update() -> None:
    files = {
        "pip": "requirements*.txt", "github-actions": ".github/workflows/*.yaml", "docker": "Dockerfile",
        "docker-compose": "compose.yaml", "maven": "pom.xml", "gomod": "go.mod",
    }  # fmt: skip
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yaml").read_text(encoding="utf-8"))["updates"]
    assert {each["package-ecosystem"] for each in updates} == files.keys()
    for each in updates:
        assert list((ROOT / each["directory"].lstrip("/")).glob(files[each["package-ecosystem"]]))
