"""The same sources give the same wheel, the same tree in the image, and the same image.

The commands are those of the Dockerfile. Without a builder they run here, but for what needs an index or a compiler.
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from consumer.version import VERSION
from tests.deploy import containers
from tests.deploy.containers import DEFAULTS, DOCKERFILE, podman
from tests.deploy.manifests import ROOT

FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "Makefile", ".dockerignore")
FOLDERS = ("consumer", "deploy", "generate", "requirements", "schemas")
LABELS = {
    "title", "description", "licenses", "source", "version", "revision", "created", "base.name", "base.digest",
}  # fmt: skip
BUILD_ARGUMENTS = {"VERSION", "SOURCE", "REVISION", "CREATED"}
"""What `make image` passes to the builder."""
_VENV = "/opt/conversation-consumer"
_ELSEWHERE = ("cargo ", "requirements/", "engine.native")
"""Words of the commands that need an index, a compiler, or what they give."""
_BUILD_S = 300.0


def test_the_labels_of_the_image_specification_are_there() -> None:
    """https://github.com/opencontainers/image-spec/blob/main/annotations.md, and each value comes from somewhere."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', DOCKERFILE))
    assert labels.keys() == LABELS
    used = set(re.findall(r"\$\{(\w+)\}", " ".join(labels.values())))
    assert used == BUILD_ARGUMENTS | {"BASE_NAME", "BASE_DIGEST"}
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert used == set(re.findall(r"^ARG (\w+)", last_stage, re.MULTILINE))
    assert DEFAULTS["VERSION"] == VERSION


@pytest.mark.parametrize("builder", ["docker", "buildah"])
@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("https://user:secret@git.example.com/team/service.git", "https://git.example.com/team/service.git"),
        ("git@git.example.com:team/service.git", "https://git.example.com/team/service.git"),
        ("ssh://git@git.example.com/team/service", "https://git.example.com/team/service"),
        ("/somewhere/here", ""),
    ],
)
def test_make_passes_what_git_knows(builder: str, remote: str, source: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "remote", "add", "origin", remote)
    _git(tmp_path, "add", ".")
    _git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message=a")
    revision = _git(tmp_path, "rev-parse", "HEAD")
    arguments = _image_commands(tmp_path, builder)
    assert arguments.keys() == BUILD_ARGUMENTS
    assert arguments["CREATED"] == "2026-01-02T03:04:05Z"
    assert (arguments["VERSION"], arguments["SOURCE"], arguments["REVISION"]) == (VERSION, source, revision)
    (tmp_path / "pyproject.toml").write_text('version = "1.2.3"\n', encoding="utf-8")
    changed = _image_commands(tmp_path, builder)
    assert (changed["VERSION"], changed["REVISION"]) == ("1.2.3", f"{revision}-dirty")
    shutil.rmtree(tmp_path / ".git")
    unknown = _image_commands(tmp_path, builder)
    assert (unknown["SOURCE"], unknown["REVISION"], unknown["CREATED"]) == ("", "unknown", "")


def _git(folder: Path, *arguments: str) -> str:
    date = "2026-01-02T04:04:05+01:00"
    environ = os.environ | {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date, "GIT_CEILING_DIRECTORIES": "/"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def _image_commands(folder: Path, builder: str) -> dict[str, str]:
    """The build arguments in what `make image` would run."""
    done = subprocess.run(
        ["make", "--dry-run", "image", f"BUILDER={builder}"],
        cwd=folder, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    (build,) = [line for line in done.stdout.replace("\\\n", " ").splitlines() if "--file deploy/Dockerfile" in line]
    words = shlex.split(build)
    assert builder in words
    times = {word for word in words if re.fullmatch(r"(SOURCE_DATE_EPOCH=)?\d{9,}", word)}
    assert len(times) == 1, "the time of all files"
    return dict(argument.split("=", 1) for option, argument in pairwise(words) if option == "--build-arg")


@pytest.mark.slow
def test_the_same_sources_give_the_same_tree(tmp_path: Path) -> None:
    """The environment with the wheel, built by the commands of the Dockerfile from two copies unlike in all else."""
    trees = []
    for name, umask in (("one", 0o022), ("another", 0o002)):
        source = _copy(tmp_path / f"of-{name}" / "sources", mode=0o666 & ~umask)
        before = os.umask(umask)
        try:
            trees.append(_install(source, tmp_path / "at" / "venv", tmp_path / "at" / "wheel"))
        finally:
            os.umask(before)
        shutil.rmtree(tmp_path / "at")
    first, again = trees
    assert any(name.endswith(".whl") for name in first)
    assert sum(name.endswith(".pyc") for name in first) > 100
    assert any(name.startswith("venv/") and name.endswith("/engine/_native.abi3.so") for name in first)
    assert [name for name in first if first[name] != again.get(name)] == []
    assert first.keys() == again.keys()


def _copy(folder: Path, mode: int) -> Path:
    """A copy of what the image is built from, with new times and these permissions."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "target", "_native*.so")
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, copy_function=shutil.copyfile)
    for path in folder.rglob("*"):
        path.chmod(0o777 & (mode | 0o111) if path.is_dir() else mode)
    return folder


def _install(source: Path, venv: Path, wheels: Path) -> dict[str, bytes]:
    """Run the commands of the Dockerfile's build; returns the contents of the wheel and of the environment's files."""
    venv.parent.mkdir()
    (epoch,) = re.findall(r"^ENV SOURCE_DATE_EPOCH=(\d+)$", DOCKERFILE, re.MULTILINE)
    runs = re.findall(r"^RUN ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    commands = [command.strip() for run in runs for command in re.split(r"&& (?!cp )", run.replace("\\\n", " "))]
    bin_ = Path(sys.executable).parent
    ran = []
    for command in commands:
        if any(word in command for word in _ELSEWHERE) or command.endswith("/build"):
            continue
        if "lib_native.so" in command:
            (wheels / "lib_native.so").write_bytes(b"a stand-in")
        here = command.replace("/build/bin/", f"{bin_}/").replace(_VENV, str(venv)).replace("/wheel", str(wheels))
        environ = os.environ | {"SOURCE_DATE_EPOCH": epoch, "PATH": f"{bin_}:/usr/bin:/bin"}
        subprocess.run(here, shell=True, cwd=source, env=environ, check=True, timeout=_BUILD_S, capture_output=True)
        ran.append(command.split()[0])
    assert len(ran) == 7, ran  # the environment, the wheel, its installation, the bill and its folder, engine, bytecode
    files = [path for path in venv.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(venv.parent)): _mode(path) + path.read_bytes() for path in files}


def _mode(path: Path) -> bytes:
    """Whether a file can be executed: in the image all have one umask."""
    return b"x" if path.stat().st_mode & stat.S_IXUSR else b"-"


@pytest.mark.deep
@pytest.mark.timeout(3_000)
def test_the_same_sources_give_the_same_image(tmp_path: Path) -> None:
    """By `make image` on the same base, from two folders, at two times, with other permissions."""
    digests = []
    base = containers.base()
    for name, mode in (("one", 0o644), ("another", 0o664)):
        source = _copy(tmp_path / f"of-{name}" / "sources", mode)
        tag = containers.build(
            f"localhost/conversation-consumer-{name}", base, tmp_path / name, source,
            REVISION="0" * 40, EPOCH="1767323045", CREATED="2026-01-02T03:04:05Z",
        )  # fmt: skip
        index = json.loads((tmp_path / name / "index.json").read_text(encoding="utf-8"))
        layers = containers.inspect(tag)["RootFS"]["Layers"]
        podman("image", "rm", "--force", tag)
        digests.append((layers, index["manifests"][0]["digest"]))
    ours = len(digests[0][0]) - len(containers.inspect(base)["RootFS"]["Layers"])
    print(f"{ours} layers of ours: {digests[0][0][-ours:]}, manifest {digests[0][1]}")
    assert ours >= 1
    assert digests[0] == digests[1]
