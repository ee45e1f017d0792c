"""The bills of materials: valid CycloneDX, and of every package and crate in the locks."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from generate.bill import CRATES, PACKAGES, PROJECT, ROOT, write_bill

PINS = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / PACKAGES).read_text(encoding="utf-8"), re.MULTILINE)
LOCKED = tomllib.loads((ROOT / CRATES).read_text(encoding="utf-8"))["package"]
REGISTERED = [crate for crate in LOCKED if "source" in crate]


@pytest.fixture(params=[True, False], ids=["image", "wheel"])
def bill(request: pytest.FixtureRequest) -> Any:
    return json.loads(write_bill(ROOT, has_packages=request.param)) | {"has_packages": request.param}


def test_it_fits_the_schema(bill: Any) -> None:
    del bill["has_packages"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None


def test_it_has_what_the_locks_have(bill: Any) -> None:
    expected = [f"pkg:cargo/{crate['name']}@{crate['version']}" for crate in REGISTERED]
    if bill["has_packages"]:
        expected += [f"pkg:pypi/{name}@{version}" for name, version in PINS]
    assert sorted(component["purl"] for component in bill["components"]) == sorted(expected)
    digests = {component["name"]: component["hashes"] for component in bill["components"]}
    for crate in REGISTERED:
        assert digests[crate["name"]] == [{"alg": "SHA-256", "content": crate["checksum"]}]
    locked = (ROOT / PACKAGES).read_text(encoding="utf-8").count("--hash=sha256:") if bill["has_packages"] else 0
    assert sum(map(len, digests.values())) == len(REGISTERED) + locked


def test_it_says_what_needs_what(bill: Any) -> None:
    needs = {entry["ref"]: set(entry["dependsOn"]) for entry in bill["dependencies"]}
    names = {component["bom-ref"]: component["name"] for component in bill["components"]}
    assert needs.keys() == {PROJECT, *names}
    assert {names[ref] for ref in needs[PROJECT]} == direct_dependencies(has_packages=bill["has_packages"])
    assert set().union(*needs.values()) == names.keys(), "nothing is there that nothing needs"
    (macros,) = [ref for ref, name in names.items() if name == "serde_derive"]
    assert {names[ref] for ref in needs[macros]} == {"proc-macro2", "quote", "syn"}


def direct_dependencies(*, has_packages: bool) -> set[str]:
    """What pyproject.toml and Cargo.toml ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    crate = tomllib.loads((ROOT / CRATES).with_name("Cargo.toml").read_text(encoding="utf-8"))
    packages = {re.split(r"[<>=]", need)[0] for need in project["dependencies"]} if has_packages else set()
    return packages | set(crate["dependencies"])


def test_no_lock_has_two_versions_of_one_name() -> None:
    """Where a lock tells what needs what, it names no version."""
    for names in ([crate["name"] for crate in LOCKED], [name for name, _ in PINS]):
        assert len(set(names)) == len(names)


def test_the_bill_of_another_folder_is_the_same(tmp_path: Path) -> None:
    for path in (Path("pyproject.toml"), PACKAGES, CRATES):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    assert write_bill(tmp_path, has_packages=True) == write_bill(ROOT, has_packages=True)
