"""JSON schemas of every kind in deploy/: the check for machines without the API server's commands.

`kubernetes.json` is what the real server said of its own kinds, cut down to those used here and made strict.
`python -m tests.deploy.schemas` asks it anew. Custom resources bring their schemas in their definitions.
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
    "Service.v1",
    "ServiceAccount.v1",
    "StatefulSet.v1.apps",
)
_SAID: Final = ("description", "default", "title")
_DEFINITIONS: Final = "#/definitions/"
_LOOSE: Final = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}

Schema = dict[str, Any]


def problems(manifest: Manifest) -> list[str]:
    """What its schema has against an object, a sentence each that says where."""
    validator = _validators().get(_key(manifest))
    if validator is None:
        return [f"no schema of {_key(manifest)}: `python -m tests.deploy.schemas` with it in KINDS"]
    return [f"{each.json_path}: {each.message}" for each in validator.iter_errors(manifest)]


def asked(server: ControlPlane) -> Schema:
    """The schemas of KINDS as this server tells them: the kinds' names, and the definitions that they refer to."""
    told: Schema = json.loads(server.must("get", "--raw", "/openapi/v2"))["definitions"]
    names = {
        _joined(each["kind"], each["version"], each["group"]): name
        for name, definition in told.items()
        for each in definition.get("x-kubernetes-group-version-kind", ())
    }
    kinds = {kind: names[kind] for kind in KINDS}
    definitions: Schema = {}
    wanted = list(kinds.values())
    while wanted:
        name = wanted.pop()
        if name in definitions:
            continue
        definitions[name] = _LOOSE.get(name) or _strict(told[name])
        wanted += [each.removeprefix(_DEFINITIONS) for each in _references(definitions[name])]
    return {"kinds": kinds, "definitions": dict(sorted(definitions.items()))}


def written(schemas: Schema) -> str:
    """The text of `kubernetes.json`: a line for each definition."""
    lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in schemas["definitions"].items()]
    return f'{{"kinds": {json.dumps(schemas["kinds"])},\n"definitions": {{\n' + ",\n".join(lines) + "\n}}\n"


@cache
def _validators() -> Mapping[str, Draft7Validator]:
    vendored: Schema = json.loads(FILE.read_text(encoding="utf-8"))
    found = {
        kind: Draft7Validator({"$ref": f"{_DEFINITIONS}{name}", "definitions": vendored["definitions"]})
        for kind, name in vendored["kinds"].items()
    }
    for path in sorted((HERE / "crds").glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
                key = _joined(spec["names"]["kind"], version["name"], spec["group"])
                found[key] = Draft7Validator(schema)
    return found


def _key(manifest: Manifest) -> str:
    group, _, version = manifest["apiVersion"].rpartition("/")
    return _joined(manifest["kind"], version, group)


def _joined(kind: str, version: str, group: str) -> str:
    return f"{kind}.{version}.{group}" if group else f"{kind}.{version}"


def _strict(schema: Any) -> Any:
    """The same without prose, and with no other keys than those that are told."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    kept = {
        name: {key: _strict(each) for key, each in value.items()} if name == "properties" else _strict(value)
        for name, value in schema.items()
        if not name.startswith("x-kubernetes-") and not (name in _SAID and not isinstance(value, dict))
    }
    if "properties" in kept and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for each in schema.values():
            yield from _references(each)


def main() -> None:
    with ControlPlane(KUBERNETES.build()) as server:
        FILE.write_text(written(asked(server)), encoding="utf-8")


if __name__ == "__main__":
    main()
