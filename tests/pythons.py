"""Install the wheel on every supported Python of this machine, and run the demo with each: `python -m tests.pythons`.

The supported versions are those of pyproject.toml. A version that is not found is listed, and is a failure in CI, or if
none is found. What the wheel needs is installed from the lock of the demo, by its digests.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.manifests import ROOT
from tests.deploy.wheel import build_wheel

_INSTALL_S = 600
_DEMO_S = 300
_ASK_S = 30
_PROGRAM = """
import platform, consumer
from consumer.engine.choice import name_engine
print(platform.python_version(), name_engine("auto"), consumer.__path__[0])
"""


def supported() -> list[str]:
    """The versions that the classifiers name, such as `3.11`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [name.rpartition(" :: ")[2] for name in project["classifiers"] if " :: Python :: 3." in name]
    return sorted(names, key=lambda name: int(name.removeprefix("3.")))


def find(version: str) -> Path | None:
    """An interpreter of this version, on the PATH or among those of pyenv."""
    for path in _candidates(version):
        program = "import sys; print('{}.{}'.format(*sys.version_info))"
        asked = subprocess.run([path, "-c", program], capture_output=True, text=True, timeout=_ASK_S, check=False)
        if asked.stdout.strip() == version:  # pyenv has a file for each version, which may refuse
            return path
    return None


def _candidates(version: str) -> Iterator[Path]:
    folders = [Path(name) for name in os.environ["PATH"].split(os.pathsep) if name]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in (*folders, *sorted(pyenv.glob(f"versions/{version}.*/bin"))):
        path = folder / f"python{version}"
        if path.is_file():
            yield path


def install(python: Path, wheel: Path, folder: Path) -> Path:
    """Make an environment in `folder` with the wheel and what the demo needs; returns its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True, timeout=_INSTALL_S)
    inside = folder / "bin" / "python"
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = ROOT / "requirements" / "demo.txt"
    for arguments in (["--require-hashes", "--requirement", str(lock)], ["--no-index", "--no-deps", str(wheel)]):
        subprocess.run([*pip, *arguments], check=True, timeout=_INSTALL_S)
    return inside


def try_out(inside: Path, folder: Path) -> tuple[str, bool]:
    """Run the demo from an empty folder; returns version, engine and place of what ran, and whether it passed."""
    asked = subprocess.run(
        [inside, "-c", _PROGRAM], cwd=folder, capture_output=True, text=True, timeout=_ASK_S, check=True
    )
    ran = subprocess.run(
        [inside.with_name("conversation-consumer"), "demo"],
        cwd=folder, capture_output=True, text=True, timeout=_DEMO_S, check=False,
    )  # fmt: skip
    if ran.returncode:
        print(ran.stdout, ran.stderr, file=sys.stderr)
    return asked.stdout.strip(), ran.returncode == 0


def main() -> int:
    """Try every version; returns the exit code."""
    pythons = {version: find(version) for version in supported()}
    missing = [version for version, path in pythons.items() if path is None]
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder, has_compiler=True)
        for version, path in pythons.items():
            if path is None:
                print(f"{version}  not found", flush=True)
                continue
            empty = folder / f"at-{version}"
            empty.mkdir()
            text, has_passed = try_out(install(path, wheel, folder / version), empty)
            print(f"{version}  {'demo passed' if has_passed else 'DEMO FAILED'}  {text}", flush=True)
            if not has_passed:
                failed.append(version)
    incomplete = (bool(missing) and bool(os.environ.get("CI"))) or len(missing) == len(pythons)
    return int(bool(failed) or incomplete)


if __name__ == "__main__":
    sys.exit(main())
