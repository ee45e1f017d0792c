"""The manifests under deploy/, rendered as `kubectl apply -k` does."""

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
"""Components that an installation may combine and that no overlay does."""
PARTS: Final = (
    "base",
    *(f"component-{name}" for name in COMPONENTS),
    *(f"combination-{name}" for name in COMBINATIONS),
)
"""Sets of manifests without a namespace of their own."""
EVERYTHING: Final = (*PARTS, *(f"overlay-{name}" for name in OVERLAYS))
_RENDER_S: Final = 30

Manifest = dict[str, Any]
"""One object of Kubernetes, as in YAML."""


class RenderError(Exception):
    """Kustomize refused a folder; the text is from kustomize."""


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
    return [manifest for manifest in yaml.safe_load_all(rendered.stdout) if manifest is not None]


def everything() -> dict[str, list[Manifest]]:
    """All sets of manifests that can be applied, by their names in EVERYTHING. Raises RenderError."""
    rendered = {"base": render(DEPLOY / "base")}
    rendered |= {f"component-{name}": with_components(name) for name in COMPONENTS}
    rendered |= {f"combination-{name}": with_components(*parts) for name, parts in COMBINATIONS.items()}
    return rendered | {f"overlay-{name}": render(DEPLOY / "overlays" / name) for name in OVERLAYS}


def with_components(*names: str) -> list[Manifest]:
    """The objects of the base with these components only."""
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
    """The objects of one kind, in their order."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: Sequence[Manifest], kind: str, name: str = "") -> Manifest:
    """The only object of this kind whose name begins with `name`; a digest may follow."""
    (manifest,) = [found for found in of_kind(manifests, kind) if found["metadata"]["name"].startswith(name)]
    return manifest


def pod_templates(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The templates of all pods that the objects describe."""
    templates = [statefulset["spec"]["template"] for statefulset in of_kind(manifests, "StatefulSet")]
    return templates + [job["spec"]["jobTemplate"]["spec"]["template"] for job in of_kind(manifests, "CronJob")]
