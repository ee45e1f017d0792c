"""Images built and run without Docker, by buildah and podman: also where there is no registry and no systemd."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.binaries import HERE
from tests.deploy.manifests import DEPLOY, ROOT, Manifest

BASE: Final = "docker.io/library/python:3.13-slim-trixie"
_STAND_IN: Final = "localhost/python-stand-in:3.13-trixie"
_SUITE: Final = "trixie"
_PULL_S: Final = 120
_BUILD_S: Final = 600
_ASK_S: Final = 60
_PACKAGES: Final = "python3-venv,python3-pip,ca-certificates"
_ENVIRON: Final = os.environ | {"CONTAINERS_CONF": str(HERE / "containers.conf")}
HARDENED: Final = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""What the Pod Security standard `restricted` and the manifests ask for."""


def missing() -> list[str]:
    """Which of the programs that this needs are not installed."""
    return [name for name in ("buildah", "podman", "runc") if shutil.which(name) is None]


def podman(*arguments: str, timeout_s: float = _ASK_S) -> subprocess.CompletedProcess[str]:
    """Run podman and return what it said; it does not raise where podman failed."""
    return subprocess.run(
        ["podman", *arguments], env=_ENVIRON, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def base() -> str:
    """The image's base: the official one if it can be had, else a stand-in made of Debian's packages.

    The stand-in has the same Debian and Python, but not the official image's layers.
    """
    if podman("pull", "--quiet", BASE, timeout_s=_PULL_S).returncode == 0:
        return BASE
    if podman("image", "exists", _STAND_IN).returncode == 0:
        return _STAND_IN
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "root.tar"
        made = subprocess.run(
            [
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}",
                '--aptopt=APT::Sandbox::User "root"', *(f"--dpkgopt=path-exclude=/usr/share/{name}/*"
                for name in ("doc", "locale", "man")), _SUITE, str(archive),
            ],
            capture_output=True, text=True, timeout=_BUILD_S, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        imported = podman("import", "--quiet", str(archive), _STAND_IN, timeout_s=_BUILD_S)
        assert imported.returncode == 0, imported.stderr
    return _STAND_IN


def build(tag: str, from_: str) -> None:
    """Build deploy/Dockerfile as it stands, on this base."""
    certificates, settings = Path("/etc/ssl/certs"), Path("/etc/pip.conf")  # this machine's way to its package index
    mounts = [f"--volume={path}:{path}:ro" for path in (certificates, settings) if path.exists()]
    built = subprocess.run(
        [
            "buildah", "bud", "--isolation=chroot", "--network=host", "--pull-never", *mounts,
            f"--build-arg=BASE={from_}", f"--file={DEPLOY / 'Dockerfile'}", f"--tag={tag}", str(ROOT),
        ],
        capture_output=True, text=True, timeout=_BUILD_S, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr


def inspected(tag: str) -> Any:
    """What podman knows of an image."""
    return json.loads(podman("image", "inspect", tag).stdout)[0]


@contextmanager
def container(tag: str, environ: Mapping[str, str], *command: str) -> Iterator[str]:
    """A hardened container in the background, on the host's network; its name. It is removed at the end."""
    variables = [f"--env={name}={value}" for name, value in environ.items()]
    started = podman("run", "--detach", "--network=host", *HARDENED, "--memory=1g", *variables, tag, *command)
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    try:
        yield name
    finally:
        podman("rm", "--force", "--time=0", name)


@contextmanager
def pod(manifests: Sequence[Manifest]) -> Iterator[str]:
    """A Pod with the ConfigMaps and Secrets that it refers to, run as podman understands it; its container's name."""
    (described,) = [each for each in manifests if each["kind"] == "Pod"]
    (inside,) = described["spec"]["containers"]
    secrets = [each["metadata"]["name"] for each in manifests if each["kind"] == "Secret"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pod.yaml"
        file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
        try:
            played = podman("play", "kube", "--network=host", str(file))
            assert played.returncode == 0, played.stdout + played.stderr
            yield f"{described['metadata']['name']}-{inside['name']}"
        finally:
            podman("play", "kube", "--down", str(file))
            for name in secrets:
                podman("secret", "rm", name)
                podman("volume", "rm", "--force", name)
