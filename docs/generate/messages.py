"""Sections about Structs as they are on the wire: a table of fields each."""

import inspect
import re
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Struct

from docs.generate.docstrings import attribute_docstrings
from docs.generate.markdown import code, table
from schemas import query, state, transition

_MODULES: tuple[ModuleType, ...] = (state, transition, query)


def _structs() -> dict[str, type[Struct]]:
    return {
        name: found
        for module in _MODULES
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, Struct) and found is not Struct
    }


_STRUCTS = _structs()
_WIRE_NAMES = {
    field.name: field.encode_name for struct in _STRUCTS.values() for field in msgspec.structs.fields(struct)
}


def sections(*structs: type[Struct], topics_page: str = "") -> str:
    """A section for each Struct and for those that it is made of.

    With `topics_page`, Structs that the topics page has are linked there and get no section.
    """
    _, components = msgspec.json.schema_components(structs, ref_template="{name}")
    elsewhere = _of_topics() if topics_page else frozenset[str]()
    links = {name: f"{topics_page if name in elsewhere else ''}#{name.lower()}" for name in components}
    return "\n\n".join(
        _section(_STRUCTS[name], schema, links) for name, schema in components.items() if name not in elsewhere
    )


def _of_topics() -> frozenset[str]:
    _, components = msgspec.json.schema_components((state.ConversationState, transition.Transition))
    return frozenset(components)


def _section(struct: type[Struct], schema: dict[str, Any], links: dict[str, str]) -> str:
    docstrings = attribute_docstrings(struct)
    meanings = {field.encode_name: docstrings.get(field.name, "") for field in msgspec.structs.fields(struct)}
    rows = [
        (
            code(name),
            _type(described, links),
            "" if name in schema["required"] else "yes",
            _to_wire_names(meanings[name]),
        )
        for name, described in schema["properties"].items()
    ]
    text = _to_wire_names(inspect.cleandoc(struct.__doc__ or ""))
    return f"### {struct.__name__}\n\n{text}\n\n{table(('field', 'type', 'optional', 'meaning'), rows)}"


def _type(schema: dict[str, Any], links: dict[str, str]) -> str:
    """The JSON type in words."""
    match schema:
        case {"$ref": name}:
            return f"[{name}]({links[name]})"
        case {"enum": values} | {"const": values}:
            return code(*map(str, values if isinstance(values, list) else [values]))
        case {"anyOf": choices}:
            return " or ".join(_type(choice, links) for choice in choices)
        case {"type": "array", "items": items}:
            return f"array of {_type(items, links)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_type(values, links)}"
    return str(schema["type"])


def _to_wire_names(text: str) -> str:
    """A docstring with the names that fields have on the wire, and null for None."""
    named = re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda match: f"`{_WIRE_NAMES.get(match[1], match[1])}`", text)
    return re.sub(r"\bNone\b", "null", named)
