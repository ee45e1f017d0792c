"""JSON schemas of every kind in deploy/: the check for machines without the API server's commands.

`kubernetes.json` has the schemas of a real server, reduced to the kinds used here and made strict.
`python -m tests.deploy.schemas` fetches them again. Custom resources have their schemas in their definitions.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import yaml
from jsonschema import Draft7Validator

from tests.deploy.binaries import HERE, KUBERNETES
from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import Manifest

FILE: Final = HERE / "kubernetes.json"
KINDS: Final = (
    "ConfigMap.v1",
    "CronJob.v1.batch",
    "Namespace.v1",
    "NetworkPolicy.v1.networking.k8s.io",
    "PodDisruptionBudget.v1.policy",
    "Secret.v1",
    "Service.v1",
    "ServiceAccount.v1",
    "StatefulSet.v1.apps",
)
_PROSE: Final = ("description", "default", "title")
_DEFINITIONS: Final = "#/definitions/"
_LOOSE: Final = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}

Schema = dict[str, Any]


def problems(manifest: Manifest) -> list[str]:
    """The violations of an object's schema, as sentences with the place in the object."""
    validator = _validators().get(_key(manifest))
    if validator is None:
        return [f"no schema of {_key(manifest)}: `python -m tests.deploy.schemas` with it in KINDS"]
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def fetch(server: ControlPlane) -> Schema:
    """The schemas of KINDS from a server: the names of their definitions, and all definitions that these refer to."""
    served: Schema = json.loads(server.must("get", "--raw", "/openapi/v2"))["definitions"]
    names = {
        _join(kind["kind"], kind["version"], kind["group"]): name
        for name, definition in served.items()
        for kind in definition.get("x-kubernetes-group-version-kind", ())
    }
    kinds = {kind: names[kind] for kind in KINDS}
    definitions: Schema = {}
    missing = list(kinds.values())
    while missing:
        name = missing.pop()
        if name in definitions:
            continue
        definitions[name] = _LOOSE.get(name) or _strict(served[name])
        missing += [reference.removeprefix(_DEFINITIONS) for reference in _references(definitions[name])]
    return {"kinds": kinds, "definitions": dict(sorted(definitions.items()))}


def to_text(schemas: Schema) -> str:
    """The text of `kubernetes.json`: a line per definition."""
    lines = [f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in schemas["definitions"].items()]
    return f'{{"kinds": {json.dumps(schemas["kinds"])},\n"definitions": {{\n' + ",\n".join(lines) + "\n}}\n"


@cache
def _validators() -> Mapping[str, Draft7Validator]:
    vendored: Schema = json.loads(FILE.read_text(encoding="utf-8"))
    validators = {
        kind: Draft7Validator({"$ref": f"{_DEFINITIONS}{name}", "definitions": vendored["definitions"]})
        for kind, name in vendored["kinds"].items()
    }
    for path in sorted((HERE / "crds").glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
                key = _join(spec["names"]["kind"], version["name"], spec["group"])
                validators[key] = Draft7Validator(schema)
    return validators


def _key(manifest: Manifest) -> str:
    group, _, version = manifest["apiVersion"].rpartition("/")
    return _join(manifest["kind"], version, group)


def _join(kind: str, version: str, group: str) -> str:
    return f"{kind}.{version}.{group}" if group else f"{kind}.{version}"


def _strict(schema: Any) -> Any:
    """The schema without prose, which allows no other keys than it declares."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    kept = {
        name: {key: _strict(item) for key, item in value.items()} if name == "properties" else _strict(value)
        for name, value in schema.items()
        if not name.startswith("x-kubernetes-") and not (name in _PROSE and not isinstance(value, dict))
    }
    if "properties" in kept and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for item in schema.values():
            yield from _references(item)


def main() -> None:
    with ControlPlane(KUBERNETES.build()) as server:
        FILE.write_text(to_text(fetch(server)), encoding="utf-8")


if __name__ == "__main__":
    main()
