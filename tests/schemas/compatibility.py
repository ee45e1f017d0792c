"""Where a message that fits one JSON Schema would be misread by those who know another.

It knows the keywords that `make schemas` writes, and reports every other one.
"""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

_BOUNDS: Final = ("format", "maxItems", "maxLength", "maximum", "minLength", "minimum", "pattern")
_SHAPE: Final = ("$ref", "additionalProperties", "anyOf", "items", "properties", "required", "type")
_TEXTS: Final = ("$defs", "$id", "$schema", "description", "examples", "title")
_KNOWN: Final = {*_BOUNDS, *_SHAPE, *_TEXTS, "const", "default", "enum"}


def find_breaks(released: Schema, current: Schema) -> list[str]:
    """What breaks readers of the released schema, a sentence for each; nothing if the `schema` number has risen."""
    before, now = number_of(released), number_of(current)
    if before is not None and now is not None and now > before:
        return []
    return find_misread(released, current, is_older=True)


def number_of(document: Schema) -> int | None:
    """The `schema` number of the messages, None if they carry none."""
    number: int | None = _resolve(document, document)["properties"].get("schema", {}).get("const")
    return number


def find_misread(reader: Schema, writer: Schema, *, is_older: bool) -> list[str]:
    """What a writer may write by its schema that a reader does not expect by its own, a sentence for each.

    A reader that `is_older` also misses fields that are no longer written.
    """
    return list(_Comparison(reader, writer, is_older=is_older).compare(reader, writer, ""))


class _Comparison:
    def __init__(self, reader: Schema, writer: Schema, *, is_older: bool) -> None:
        self._reader, self._writer, self._is_older = reader, writer, is_older

    def compare(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        """The differences below a path, which is empty for the whole message."""
        reader, writer = _resolve(self._reader, reader), _resolve(self._writer, writer)
        if "default" in reader and reader["default"] != writer.get("default", reader["default"]):
            yield f"{path}: absent means {writer['default']!r}, not {reader['default']!r}"
        expected = [_resolve(self._reader, option) for option in reader.get("anyOf", [reader])]
        written = [_resolve(self._writer, option) for option in writer.get("anyOf", [writer])]
        unknown = {name for schema in (reader, writer, *expected, *written) for name in schema} - _KNOWN
        yield from (f"{path}: unknown keyword {name}" for name in sorted(unknown))
        for found in written:
            alike = [other for other in expected if _type(other) in {None, _type(found)}]
            problems = [list(self._compare_option(other, found, path)) for other in alike]
            if not problems:
                yield f"{path}: may be {_type(found) or 'anything'}"
            elif all(problems):
                yield from min(problems, key=len)

    def _compare_option(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        yield from _compare_values(reader, writer, path)
        for name in _BOUNDS:
            if name in reader and reader[name] != writer.get(name):
                yield f"{path}: {name} is {writer.get(name)!r}, not {reader[name]!r}"
        expected, written = reader.get("properties", {}), writer.get("properties", {})
        for name in sorted(set(reader.get("required", ())) - set(writer.get("required", ()))):
            yield f"{path}.{name}: may be absent"
        if self._is_older:
            yield from (f"{path}.{name}: is gone" for name in sorted(expected.keys() - written.keys()))
        for name in expected.keys() & written.keys():
            yield from self.compare(expected[name], written[name], f"{path}.{name}")
        for name in ("items", "additionalProperties"):
            if name in reader:
                yield from self.compare(reader[name], writer.get(name, {}), f"{path}[]")


def _compare_values(reader: Schema, writer: Schema, path: str) -> Iterator[str]:
    expected, written = _values(reader), _values(writer)
    if expected is not None and written is None:
        yield f"{path}: may be any value"
    elif expected is not None and written is not None:
        yield from (f"{path}: may be {value!r}" for value in written if value not in expected)


def _values(schema: Schema) -> list[Any] | None:
    """The only values, if they are listed."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _type(schema: Schema) -> str | None:
    """The type of a value; None for one of any type, or of several."""
    values = _values(schema)
    if "type" in schema or not values:
        return schema.get("type")
    return "string" if all(isinstance(value, str) for value in values) else None


def _resolve(document: Schema, schema: Schema) -> Schema:
    """The schema that a reference names, with what stands beside the reference."""
    if "$ref" not in schema:
        return schema
    beside = {name: value for name, value in schema.items() if name != "$ref"}
    found: Schema = document["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return _resolve(document, found) | beside
