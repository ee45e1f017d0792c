"""Builds the wheel from a copy of the sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.deploy.manifests import ROOT

CRATE: Final = ROOT / "consumer" / "engine" / "rust"
_COMPILE_S: Final = 580.0


def build_wheel(folder: Path, *, has_compiler: bool) -> Path:
    """Build the wheel from a copy: setuptools keeps earlier builds in the folder, with deleted modules."""
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    for name in ("consumer", "generate", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "_native*.so")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    environ = os.environ | {"CARGO_TARGET_DIR": str(CRATE / "target")}  # which `make engine` has filled
    if not has_compiler:
        folders = environ["PATH"].split(os.pathsep)
        environ["PATH"] = os.pathsep.join(name for name in folders if not (Path(name) / "cargo").exists())
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source],
        check=True, timeout=_COMPILE_S, capture_output=True, env=environ,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel
