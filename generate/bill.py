"""The bills of materials of the image and of the wheel, from their locks, as CycloneDX 1.6.

`python generate/bill.py` prints that of the image: the packages of `requirements/run.txt` and the crates of the native
engine. With `--crates` it prints that of the wheel. It uses only the standard library, because image and wheel write
their bills where nothing else is installed. The same locks give the same bytes.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final = "conversation-consumer"
PACKAGES: Final = Path("requirements/run.txt")
CRATES: Final = Path("consumer/engine/rust/Cargo.lock")
_PIN: Final = re.compile(r"^([\w.-]+)==([^\s;]+)(.*(?:\n .*)*)", re.MULTILINE)
"""Name, version, and the rest with the indented lines: digests, then who needs the package."""
_NEEDED_BY: Final = re.compile(r"^ +# (?:via |  )([\w.-]+)", re.MULTILINE)


def write_bill(root: Path, *, has_packages: bool) -> str:
    """The bill of the checkout in `root`: of the packages and the crates, or of the crates alone."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    main = _component("pypi", PROJECT, project["version"]) | {
        "type": "application",
        "bom-ref": PROJECT,
        "description": project["description"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    components, needs = _read_crates(root / CRATES)
    if has_packages:
        packages, needs_of_packages = _read_packages(root / PACKAGES)
        components, needs = packages + components, needs_of_packages | needs
    refs = [PROJECT, *(component["bom-ref"] for component in components)]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(needed for dependent, needed in needs if dependent == ref)} for ref in refs
        ],
    }
    return json.dumps(bill, indent=1) + "\n"


def _read_packages(lock: Path) -> tuple[list[Any], set[tuple[str, str]]]:
    """The components of a lock that uv has written, and pairs of a component and one that it needs."""
    pins = _PIN.findall(lock.read_text(encoding="utf-8"))
    components = [
        _component("pypi", name, version, re.findall(r"--hash=sha256:([0-9a-f]{64})", below))
        for name, version, below in pins
    ]
    refs = _name_refs(components)
    needs = {(refs[dependent], refs[name]) for name, _, below in pins for dependent in _NEEDED_BY.findall(below)}
    return components, needs


def _read_crates(lock: Path) -> tuple[list[Any], set[tuple[str, str]]]:
    """As `_read_packages`, of a Cargo.lock. The crate without a registry is the engine, a part of the project."""
    crates = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    components = [
        _component("cargo", crate["name"], crate["version"], [crate["checksum"]])
        for crate in crates
        if "source" in crate
    ]
    refs = _name_refs(components) | {crate["name"]: PROJECT for crate in crates if "source" not in crate}
    needs = {(refs[crate["name"]], refs[needed]) for crate in crates for needed in crate.get("dependencies", ())}
    return components, needs


def _name_refs(components: Iterable[Any]) -> dict[str, str]:
    """References by name. Of a name with two versions only one is found: a test says that no lock has any."""
    return {component["name"]: component["bom-ref"] for component in components} | {PROJECT: PROJECT}


def _component(kind: str, name: str, version: str, digests: Sequence[str] = ()) -> dict[str, Any]:
    """A component; `kind` is the type of its package URL, `digests` are the SHA-256 of its archives."""
    purl = f"pkg:{kind}/{name}@{version.replace('+', '%2B')}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    return component | ({"hashes": hashes} if hashes else {})


if __name__ == "__main__":
    sys.stdout.write(write_bill(ROOT, has_packages=sys.argv[1:] != ["--crates"]))
