"""The wheel has what it should have, and the locks are those of the image and of its build."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from generate.bill import write_bill
from tests.deploy.manifests import ROOT
from tests.deploy.wheel import CRATE, build_wheel

EXTENSION = "consumer/engine/_native.abi3.so"


@pytest.mark.parametrize("has_compiler", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_wheel_has_all_files_of_the_packages_and_no_others(
    tmp_path: Path,
    has_compiler: bool,  # noqa: FBT001 - a column
) -> None:
    """With the engine where a Rust compiler is, and without it the same source installs as well."""
    if has_compiler and shutil.which("cargo") is None:
        assert "CI" not in os.environ, "CI builds the native engine, and there is no cargo"
        pytest.skip("there is no cargo")
    wheel = build_wheel(tmp_path, has_compiler=has_compiler)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (scripts,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "conversation-consumer = consumer.__main__:main" in archive.read(scripts).decode()
        (found,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = message_from_bytes(archive.read(found))
        bills = [archive.read(name).decode() for name in archive.namelist() if ".dist-info/sboms/" in name]
    assert metadata.get_all("Provides-Extra") == ["demo", "parquet"], "what only developers need is not published"
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("consumer", "schemas")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(CRATE)
    }
    assert packed == sources - {EXTENSION} | ({EXTENSION} if has_compiler else set())
    assert bills == ([write_bill(ROOT, has_packages=False)] if has_compiler else [])
    assert engine_of(wheel, tmp_path) == ("native" if has_compiler else "python")


def engine_of(wheel: Path, folder: Path) -> str:
    """The engine that runs from an unpacked wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    program = "from consumer.engine.choice import name_engine; print(name_engine('auto'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder / "unpacked", check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_the_locks_are_of_the_runtime_only() -> None:
    runtime = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    demo = (ROOT / "requirements" / "demo.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(confluent-kafka|duckdb|pyarrow)==", runtime, re.MULTILINE)
    assert "confluent-kafka==" in demo
    pins = {line for line in runtime.splitlines() if "==" in line}
    assert pins <= set(demo.splitlines()), "the image and the demo differ in a version"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["build-system"]["requires"] == [
        "setuptools>=77",
        "setuptools-rust>=1.10",
    ]  # what `make lock` locks for the image's build
