"""The manifests under deploy/, rendered as `kubectl apply -k` would."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.binaries import KUBERNETES

ROOT: Final = Path(__file__).parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
OVERLAYS: Final = ("dev", "prod")
COMPONENTS: Final = tuple(sorted(path.name for path in (DEPLOY / "components").iterdir()))
COMBINATIONS: Final = {
    "strimzi": ("strimzi", "networkpolicy", "monitoring", "keda"),
    "static": ("topics", "sasl", "networkpolicy", "monitoring", "static-membership"),
}
"""Choices that an installation may make and that the overlays do not."""
PARTS: Final = (
    "base",
    *(f"component-{name}" for name in COMPONENTS),
    *(f"combination-{name}" for name in COMBINATIONS),
)
"""What has no namespace of its own."""
EVERYTHING: Final = (*PARTS, *(f"overlay-{name}" for name in OVERLAYS))
_RENDER_S: Final = 30

Manifest = dict[str, Any]
"""One object of Kubernetes, as its YAML has it."""


class RenderError(Exception):
    """Kustomize refused a folder. The text is its own."""


def renderer() -> list[str] | None:
    """The command that renders a folder: the kubectl of the cache, or one of the machine."""
    cached = KUBERNETES.cached()
    if cached is not None:
        return [str(cached / "kubectl"), "kustomize"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


def render(folder: Path) -> list[Manifest]:
    """The objects of a folder with a kustomization. Raises RenderError."""
    command = renderer()
    if command is None:
        raise RenderError("neither kubectl nor kustomize is installed")
    rendered = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=_RENDER_S, check=False)
    if rendered.returncode != 0:
        raise RenderError(rendered.stderr)
    return [each for each in yaml.safe_load_all(rendered.stdout) if each is not None]


def everything() -> dict[str, list[Manifest]]:
    """All that can be applied, by its name in EVERYTHING. Raises RenderError."""
    found = {"base": render(DEPLOY / "base")}
    found |= {f"component-{name}": with_components(name) for name in COMPONENTS}
    found |= {f"combination-{name}": with_components(*parts) for name, parts in COMBINATIONS.items()}
    return found | {f"overlay-{name}": render(DEPLOY / "overlays" / name) for name in OVERLAYS}


def with_components(*names: str) -> list[Manifest]:
    """The objects of the base with these components and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(DEPLOY / "base", folder)],
            "components": [os.path.relpath(DEPLOY / "components" / name, folder) for name in names],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return render(Path(folder))


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind, in their order."""
    return [each for each in manifests if each["kind"] == kind]


def one(manifests: Sequence[Manifest], kind: str, name: str = "") -> Manifest:
    """The only one of its kind, or of its kind and name (or what its name begins with, where a digest follows)."""
    (found,) = [each for each in of_kind(manifests, kind) if each["metadata"]["name"].startswith(name)]
    return found


def pod_templates(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The templates of all pods that the objects describe."""
    found = [each["spec"]["template"] for each in of_kind(manifests, "StatefulSet")]
    return found + [each["spec"]["jobTemplate"]["spec"]["template"] for each in of_kind(manifests, "CronJob")]
