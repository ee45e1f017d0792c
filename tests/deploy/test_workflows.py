"""The workflows: pinned actions, least permissions, and commands that exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.binaries import TOOLS
from tests.deploy.manifests import ROOT
from tests.pythons import supported

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit(path: Any) -> None:
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not PINNED.match(action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_least_permissions_and_a_time_limit(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        signs = {"id-token": "write", "attestations": "write"} if name == "provenance" else {}
        assert job["permissions"] == {"contents": "read"} | signs
        assert job["timeout-minutes"]
        (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert checkout["with"]["persist-credentials"] is False


def test_ci_has_every_python_that_is_supported() -> None:
    """All run the demo, and the oldest and the newest run all tests."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8"))["jobs"]
    (setup,) = [step for step in jobs["pythons"]["steps"] if "setup-python" in step.get("uses", "")]
    assert sorted(setup["with"]["python-version"].split()) == supported()
    assert jobs["test"]["strategy"]["matrix"]["python"] == [supported()[0], supported()[-1]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_exists(path: Any) -> None:
    targets = set(re.findall(r"run: .*\bmake ([a-z-]+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_actionlint_finds_no_problem() -> None:
    tools = TOOLS.cached()
    if tools is None:
        pytest.skip("actionlint is not in the cache: `make deploy-check` builds it")
    done = subprocess.run(
        [tools / "actionlint", "-no-color", *WORKFLOWS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_dependabot_looks_into_folders_with_dependencies() -> None:
    files = {
        "pip": "requirements/*.txt", "github-actions": ".github/workflows/*.yaml", "docker": "Dockerfile",
        "docker-compose": "compose.yaml", "maven": "pom.xml", "gomod": "go.mod", "cargo": "Cargo.toml",
    }  # fmt: skip
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yaml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == files.keys()
    for update in updates:
        assert list((ROOT / update["directory"].lstrip("/")).glob(files[update["package-ecosystem"]]))


@pytest.mark.parametrize(
    "path",
    [ROOT / name for name in ("Makefile", "README.md", "docs/tutorial.md", "deploy/Dockerfile")],
    ids=lambda path: path.name,
)
def test_nothing_is_installed_without_a_hash(path: Path) -> None:
    """Or it is from here, and nothing is downloaded."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"\bpip (?:--\S+ \S+ )?(?:install|wheel)\b[^&\n]*", text)
    assert installs
    assert [line for line in installs if not re.search(r"--require-hashes|--no-index", line)] == []
    assert not re.search(r"uv tool run|uvx|curl [^\n]*\| *(?:ba)?sh", text)


def test_release_has_provenance_and_every_push_is_audited() -> None:
    jobs = {name: job for path in WORKFLOWS for name, job in yaml.safe_load(path.read_text())["jobs"].items()}
    used = {name: [str(step.get("uses") or step.get("run")) for step in job["steps"]] for name, job in jobs.items()}
    assert any(step.startswith("actions/attest-build-provenance@") for step in used["provenance"])
    assert "make audit" in used["audit"]
    assert "make audit" in used["provenance"]
