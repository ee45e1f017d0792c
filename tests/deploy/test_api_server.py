"""A real API server accepts deploy/, as a first installation and as an upgrade, and refuses mistakes."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import (
    DEPLOY,
    EVERYTHING,
    OVERLAYS,
    PARTS,
    ROOT,
    Manifest,
    of_kind,
    one,
    pod_templates,
    render,
)
from tests.deploy.mistakes import MISTAKES, Mistake, plant

_GIT_S = 30
Rendered = dict[str, list[Manifest]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_accepted_with_its_own_namespace(api_server: ControlPlane, rendered: Rendered, name: str) -> None:
    manifests = rendered[f"overlay-{name}"]
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    answer = api_server.apply(manifests)
    assert answer.accepted, answer.text


@pytest.mark.parametrize("name", PARTS)
def test_the_base_with_components_is_accepted(api_server: ControlPlane, rendered: Rendered, name: str) -> None:
    namespace = api_server.namespace(f"part-{name}")
    answer = api_server.apply(rendered[name], f"--namespace={namespace}")
    assert answer.accepted, answer.text


@pytest.mark.parametrize("name", EVERYTHING)
def test_pods_of_the_templates_pass_pod_security(api_server: ControlPlane, rendered: Rendered, name: str) -> None:
    # A controller's template only gets a warning; a pod is where the standard is enforced.
    namespace = api_server.namespace(f"pods-{name}")
    templates = pod_templates(rendered[name])
    assert templates
    _with_account(api_server, rendered[name], namespace)
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
        pod["metadata"] = {"name": "pod", "namespace": namespace, "labels": template["metadata"]["labels"]}
        api_server.must("create", "--dry-run=server", "-f", "-", given=yaml.safe_dump(pod))


def test_a_pod_that_is_not_hardened_is_forbidden(api_server: ControlPlane, rendered: Rendered) -> None:
    namespace = api_server.namespace("soft")
    _with_account(api_server, rendered["base"], namespace)
    template = pod_templates(rendered["base"])[0]
    spec = template["spec"] | {"securityContext": {}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": spec}
    answer = api_server.kubectl("create", "--dry-run=server", "-f", "-", given=yaml.safe_dump(pod))
    assert not answer.accepted
    assert 'violates PodSecurity "restricted:latest"' in answer.text


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_accepted_over_its_previous_release(
    api_server: ControlPlane, rendered: Rendered, tmp_path: Path, name: str
) -> None:
    """Some fields of a StatefulSet, Service or Job can never change: only an upgrade shows it."""
    before = _move(render(_previous_release(tmp_path) / "overlays" / name), f"upgrade-{name}")
    now = _move(rendered[f"overlay-{name}"], f"upgrade-{name}")
    for manifests in (before, now):
        answer = api_server.apply(manifests)
        assert answer.accepted, answer.text


def test_an_upgrade_of_an_immutable_field_is_refused(api_server: ControlPlane, rendered: Rendered) -> None:
    manifests = _move(rendered["overlay-dev"], "immutable")
    assert api_server.apply(manifests).accepted
    one(manifests, "StatefulSet")["spec"]["podManagementPolicy"] = "OrderedReady"
    answer = api_server.apply(manifests)
    assert not answer.accepted
    assert "updates to statefulset spec for fields other than" in answer.text


def test_an_autoscaler_starts_at_one_and_keeps_its_number(api_server: ControlPlane, rendered: Rendered) -> None:
    def replicas() -> str:
        wanted = ("get", "statefulset", "conversation-consumer", "--output=jsonpath={.spec.replicas}")
        return api_server.must(f"--namespace={namespace}", *wanted)

    namespace = api_server.namespace("autoscaled")
    assert api_server.apply(rendered["base"], f"--namespace={namespace}").accepted
    assert api_server.apply(rendered["component-keda"], f"--namespace={namespace}").accepted
    assert replicas() == "1"
    api_server.must(f"--namespace={namespace}", "scale", "statefulset/conversation-consumer", "--replicas=7")
    assert api_server.apply(rendered["component-keda"], f"--namespace={namespace}").accepted
    assert replicas() == "7"


@pytest.mark.parametrize(
    "mistake", [mistake for mistake in MISTAKES if mistake.found_by != "rules"], ids=lambda mistake: mistake.name
)
def test_a_planted_mistake_is_refused(api_server: ControlPlane, rendered: Rendered, mistake: Mistake) -> None:
    good = _move(rendered["overlay-prod"], "mistakes")
    api_server.namespace("mistakes")
    answer = api_server.apply(of_kind(plant(mistake, good), mistake.kind), "--dry-run=server")
    assert not answer.accepted
    assert mistake.message in answer.text


def test_the_manifests_without_a_mistake_are_accepted(api_server: ControlPlane, rendered: Rendered) -> None:
    api_server.namespace("mistakes")
    answer = api_server.apply(_move(rendered["overlay-prod"], "mistakes"), "--dry-run=server")
    assert answer.accepted, answer.text


def _with_account(api_server: ControlPlane, manifests: list[Manifest], namespace: str) -> None:
    """Create the service account, without which no pod is admitted."""
    answer = api_server.apply(_move([one(manifests, "ServiceAccount")], namespace))
    assert answer.accepted, answer.text


def _move(manifests: list[Manifest], namespace: str) -> list[Manifest]:
    """A copy of the manifests in another namespace, so that tests do not disturb each other."""
    moved: list[Manifest] = yaml.safe_load(yaml.safe_dump(manifests))
    for manifest in moved:
        if manifest["kind"] == "Namespace":
            manifest["metadata"]["name"] = namespace
        else:
            manifest["metadata"]["namespace"] = namespace
    return moved


def _previous_release(folder: Path) -> Path:
    """deploy/ of the newest tag, or of the commit that added it if nothing is released yet."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git history to take the previous release from")
    commit = (
        _git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^", check=False)
        or _git("log", "--diff-filter=A", "--format=%H", "--reverse", "--", "deploy/base/kustomization.yaml").split(
            "\n", maxsplit=1
        )[0]
    )
    archive = folder / "deploy.tar"
    subprocess.run(["git", "archive", f"--output={archive}", commit, DEPLOY.name], cwd=ROOT, check=True, timeout=_GIT_S)
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / DEPLOY.name


def _git(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=_GIT_S, check=check)
    return done.stdout.strip() if done.returncode == 0 else ""
