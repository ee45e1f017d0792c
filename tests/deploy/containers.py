"""Builds and runs images by buildah and podman: without Docker, and also without a registry and systemd."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.binaries import HERE
from tests.deploy.manifests import DEPLOY, ROOT, Manifest, of_kind

DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
DEFAULTS: Final = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
BASE: Final = f"{DEFAULTS['BASE_NAME']}@{DEFAULTS['BASE_DIGEST']}"
RUST: Final[str] = DEFAULTS["RUST"]
_STAND_IN: Final = "localhost/python-stand-in:3.13-trixie"
_RUST_STAND_IN: Final = "localhost/rust-stand-in:trixie"
_SUITE: Final = "trixie"
_VERSION: Final[str] = DEFAULTS["VERSION"]
_PULL_S: Final = 120
_BUILD_S: Final = 600
_ASK_S: Final = 60
_PACKAGES: Final = "python3-venv,python3-pip,ca-certificates"
_RUST_PACKAGES: Final = "gcc,libc6-dev,ca-certificates"
_ENVIRON: Final = os.environ | {"CONTAINERS_CONF": str(HERE / "containers.conf")}
HARDENED: Final = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""The restrictions of the Pod Security standard `restricted` and of the manifests."""


def missing() -> list[str]:
    """The programs that are needed here and not installed."""
    return [name for name in ("buildah", "podman", "runc") if shutil.which(name) is None]


def podman(*arguments: str, timeout_s: float = _ASK_S) -> subprocess.CompletedProcess[str]:
    """Run podman; returns its output and exit code also if it failed."""
    return subprocess.run(
        ["podman", *arguments], env=_ENVIRON, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def base() -> str:
    """The image's base: the official one if it can be pulled, else a stand-in from Debian's packages.

    The stand-in has the same Debian and Python, but not the layers of the official image.
    """
    if podman("pull", "--quiet", BASE, timeout_s=_PULL_S).returncode == 0:
        return BASE
    return _stand_in(_STAND_IN, _PACKAGES)


def compiler() -> str:
    """The image with the Rust compiler, found like `base`; the stand-in has the compiler of this machine."""
    if podman("pull", "--quiet", RUST, timeout_s=_PULL_S).returncode == 0:
        return RUST
    found = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
    return _stand_in(_RUST_STAND_IN, _RUST_PACKAGES, Path(found.stdout.strip()))


def _stand_in(tag: str, packages: str, local: Path | None = None) -> str:
    """Make an image of Debian's packages, with the files of a folder in `/usr/local`, unless it exists; its tag."""
    if podman("image", "exists", tag).returncode == 0:
        return tag
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "root.tar"
        done = subprocess.run(
            [
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}",
                '--aptopt=APT::Sandbox::User "root"', *(f"--dpkgopt=path-exclude=/usr/share/{name}/*"
                for name in ("doc", "locale", "man")),
                *([f"--customize-hook=sync-in {local} /usr/local"] if local else []), _SUITE, str(archive),
            ],
            capture_output=True, text=True, timeout=_BUILD_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        imported = podman("import", "--quiet", str(archive), tag, timeout_s=_BUILD_S)
        assert imported.returncode == 0, imported.stderr
    return tag


def build(image: str, from_: str, layout: Path, source: Path = ROOT, **variables: str) -> str:
    """`make image` of the checkout in `source`, on this base, with other variables if given; returns the tag."""
    certificates, settings = Path("/etc/ssl/certs"), Path("/etc/pip.conf")  # may be needed for the package indexes
    mounts = [f"--volume={path}:{path}:ro" for path in (certificates, settings) if path.exists()]
    name, _, digest = from_.partition("@")
    arguments = {
        "BASE": from_, "BASE_NAME": name, "BASE_DIGEST": digest or inspect(from_)["Digest"], "RUST": compiler(),
    }  # fmt: skip
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    values = variables | {
        "BUILDER": "buildah",
        "IMAGE": image,
        "LAYOUT": str(layout),
        "OPTIONS": shlex.join(["--isolation=chroot", "--network=host", "--pull-never", *mounts, *options]),
        "PYTHON": sys.executable,
        "VERSION": _VERSION,
    }
    done = subprocess.run(
        ["make", "--directory", source, "image", *(f"{key}={value}" for key, value in values.items())],
        capture_output=True, text=True, timeout=2 * _BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{image}:{_VERSION}"


def inspect(tag: str) -> dict[str, Any]:
    """The output of `podman image inspect`."""
    found: list[dict[str, Any]] = json.loads(podman("image", "inspect", tag).stdout)
    return found[0]


@contextmanager
def container(tag: str, environ: Mapping[str, str], *command: str) -> Iterator[str]:
    """Run a hardened container in the background, on the host's network; yields its name and removes it at the end."""
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
    """Run a Pod with its ConfigMaps and Secrets by podman; yields the name of its container."""
    (manifest,) = of_kind(manifests, "Pod")
    (inside,) = manifest["spec"]["containers"]
    secrets = [secret["metadata"]["name"] for secret in of_kind(manifests, "Secret")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pod.yaml"
        file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
        try:
            played = podman("play", "kube", "--network=host", str(file))
            assert played.returncode == 0, played.stdout + played.stderr
            yield f"{manifest['metadata']['name']}-{inside['name']}"
        finally:
            podman("play", "kube", "--down", str(file))
            for name in secrets:
                podman("secret", "rm", name)
                podman("volume", "rm", "--force", name)
