"""The commands of Kubernetes, kwok, actionlint and oras, built from their Go modules once and kept outside the tree.

The name of a folder has a digest of everything that its bytes depend on, so that no binary is of other sources than the
checkout's. `python -m tests.deploy.binaries` builds what is missing: about 8 minutes on two cores.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import Struct

HERE: Final = Path(__file__).parent
KUBERNETES_VERSION: Final = "1.34.4"
_BUILD_S: Final = 1_800
_ASK_S: Final = 30
_VERSION: Final = "k8s.io/component-base/version"
_STAGES: Final = (
    "node/fast/node-initialize",
    "node/heartbeat/node-heartbeat",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)


class GoModule(Struct, frozen=True):
    """A folder with a go.mod, and the commands that go builds from it."""

    folder: Path
    commands: tuple[str, ...]
    packages: tuple[str, ...]
    ldflags: str

    def cached(self) -> Path | None:
        """The folder with its commands, None if any is missing."""
        folder = self._target()
        if folder is None or not all((folder / name).is_file() for name in self.commands):
            return None
        return folder

    def build(self) -> Path:
        """Build what is missing; returns the folder. Raises CalledProcessError, FileNotFoundError without Go."""
        cached = self.cached()
        if cached is not None:
            return cached
        target = self._target()
        if target is None:
            raise FileNotFoundError("go is not installed")
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": f"-mod=readonly -buildvcs=false -p={os.cpu_count()}"}
        command = ["go", "build", "-trimpath", "-ldflags", f"-s -w {self.ldflags}", "-o", f"{partial}/", *self.packages]
        try:
            subprocess.run(command, cwd=self.folder, env=environ, check=True, timeout=_BUILD_S)
            _keep_stages(self.folder, partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _target(self) -> Path | None:
        go = _go_version()
        if go is None:
            return None
        digest = hashlib.sha256(f"{go} {self.ldflags}".encode())
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(self.folder).as_posix().encode() + b"\0" + path.read_bytes())
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "conversation-consumer" / f"{self.folder.name}-{digest.hexdigest()[:16]}"


_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
KUBERNETES: Final = GoModule(
    HERE / "go" / "kubernetes",
    ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
    ("./cmd/...",),
    f"-X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
)
TOOLS: Final = GoModule(HERE / "go" / "tools", ("kwok", "actionlint"), ("tool",), "")
ORAS: Final = GoModule(HERE / "go" / "oras", ("oras",), ("tool",), "")


@cache
def _go_version() -> str | None:
    if shutil.which("go") is None:
        return None
    done = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    return done.stdout.strip()


def _keep_stages(module: Path, target: Path) -> None:
    """Copy kwok's descriptions of how nodes and pods behave beside it."""
    if not (target / "kwok").is_file():
        return
    done = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"],
        cwd=module, capture_output=True, text=True, timeout=_ASK_S, check=True,
    )  # fmt: skip
    folder = Path(done.stdout.strip()) / "kustomize" / "stage"
    texts = [(folder / f"{name}.yaml").read_text(encoding="utf-8") for name in _STAGES]
    (target / "stages.yaml").write_text("\n---\n".join(texts), encoding="utf-8")


def main(modules: Sequence[GoModule] = (KUBERNETES, TOOLS, ORAS)) -> None:
    for module in modules:
        print(module.build(), file=sys.stderr)


if __name__ == "__main__":
    main()
