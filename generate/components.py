"""The JSON Schemas of Structs, with what their docstrings say.

msgspec makes the schemas and knows the docstrings of classes. Those below attributes and type aliases are in the source
alone. They name attributes and values as Python does, a schema as JSON does: None in a docstring is always the value.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.inspect import DictType, ListType, Metadata, StructType, Type, UnionType, type_info

_CONSTANTS = {"None": "`null`", "True": "`true`", "False": "`false`"}


def components(roots: Sequence[type[Struct]], ref_template: str) -> dict[str, dict[str, Any]]:
    """The schemas of Structs and of all that they hold, by the names of the classes. `ref_template` is msgspec's."""
    structs = {struct.__name__: struct for root in roots for struct in _structs(type_info(root))}
    aliases = {name: text for struct in structs.values() for name, text in _alias_texts(struct.__module__)}
    fields = [field for struct in structs.values() for field in msgspec.structs.fields(struct)]
    wire_names = {field.name: field.encode_name for field in fields}
    _, schemas = msgspec.json.schema_components(roots, ref_template=ref_template)
    for name, schema in schemas.items():
        texts = field_texts(structs[name], aliases)
        schema["description"] = to_json_terms(schema["description"], wire_names)
        for field in msgspec.structs.fields(structs[name]):
            if field.name in texts:
                description = to_json_terms(texts[field.name], wire_names)
                schema["properties"][field.encode_name]["description"] = description
    return schemas


def field_texts(struct: type[Struct], aliases: dict[str, str]) -> dict[str, str]:
    """What is said of the fields of a Struct: below the attribute, else below the alias that is its type."""
    texts = {}
    for cls in struct.__mro__[::-1]:
        if issubclass(cls, Struct) and cls is not Struct:
            (definition,) = ast.parse(inspect.getsource(cls)).body
            assert isinstance(definition, ast.ClassDef)
            for statement, text in _with_texts(definition.body):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    alias = aliases.get(ast.unparse(statement.annotation).removesuffix(" | None"), "")
                    texts[statement.target.id] = text or alias
    return {name: text for name, text in texts.items() if text}


def to_json_terms(text: str, wire_names: dict[str, str]) -> str:
    """A docstring as a description: quoted attributes and constants as JSON has them, paragraphs in one line."""
    text = re.sub(r"`(\w+)`", lambda quoted: f"`{wire_names.get(quoted[1], quoted[1])}`", text)
    text = re.sub(r"\b(None|True|False)\b", lambda constant: _CONSTANTS[constant[1]], text)
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if _is_table(part) else " ".join(part.split()) for part in paragraphs)


def _is_table(paragraph: str) -> bool:
    return paragraph.startswith("|")


def _structs(info: Type) -> Iterator[type[Struct]]:
    """The Structs that a type holds, itself included."""
    match info:
        case StructType(cls=struct, fields=fields):
            yield struct
            inner = [field.type for field in fields]
        case ListType(item_type=item):
            inner = [item]
        case DictType(value_type=value):
            inner = [value]
        case UnionType(types=members):
            inner = list(members)
        case Metadata(type=bare):
            inner = [bare]
        case _:
            inner = []
    for inner_type in inner:
        yield from _structs(inner_type)


def _alias_texts(module: str) -> Iterator[tuple[str, str]]:
    """The aliases of types in a module that a docstring describes."""
    for statement, text in _with_texts(ast.parse(inspect.getsource(sys.modules[module])).body):
        if text and isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, text


def _with_texts(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements, each with the docstring below it, empty if there is none."""
    for statement, below in pairwise([*body, ast.Pass()]):
        match below:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield statement, inspect.cleandoc(text)
            case _:
                yield statement, ""
