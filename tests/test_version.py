"""The version that the service shows: of a checkout, of an installed package, of neither."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from consumer.version import find_version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the metadata of an installed package, version 9.8.7."""
    metadata = tmp_path / "conversation_consumer-9.8.7.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: conversation-consumer\nVersion: 9.8.7\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_checkout_knows_its_version() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "consumer", "--version"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == (f"conversation-consumer {PROJECT['version']}\n", "")


def test_an_installed_package_is_asked_for_its_metadata(installed: Path) -> None:
    assert find_version(installed) == "9.8.7"
    (installed / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "1.2.3"\n', encoding="utf-8")
    assert find_version(installed) == "9.8.7"


@pytest.mark.usefixtures("installed")
def test_a_checkout_wins_over_stale_metadata() -> None:
    assert find_version(ROOT) == PROJECT["version"]


def test_code_without_either_is_of_an_unknown_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_version(tmp_path) == "0+unknown"
