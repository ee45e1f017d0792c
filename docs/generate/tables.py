"""The page of the tables that `export` writes."""

from typing import Any, Final, get_type_hints

from consumer.tools.export_rows import ROWS, TIMES, Row, TableName
from docs.generate.docstrings import attribute_docstrings
from docs.generate.markdown import code, document, table
from schemas.state import Timestamp

_INTRO = """
What [`export`](cli.md#conversation-consumer-export) writes; [queries](../how-to/query-with-sql.md) on it. Columns have
the same names in every format. A column without a note is the field of the [messages](topics.md#messages) of that name,
there in camelCase; those of a transition's `context` and of `details` stand beside the others.

A time is ISO 8601 in UTC with milliseconds, and a timestamp in Parquet; a number has 64 bits. What has no value is
null, and empty in CSV. Within each day rows are sorted by `partition` and `offset`, the place of the record that gave
the row.
"""
_TYPES: Final[dict[Any, str]] = {Timestamp: "time", str: "text", int: "number", bool: "`true`, `false`"}


def page() -> str:
    """`tables.md`."""
    return document("Tables", _INTRO, *(_section(name, row) for name, row in ROWS.items()))


def _section(name: TableName, row: type[Row]) -> str:
    _, _, meaning = " ".join((row.__doc__ or "").split()).partition(": ")
    hints, notes = get_type_hints(row, include_extras=True), attribute_docstrings(row)
    names = {kind: text for base, text in _TYPES.items() for kind in (base, base | None)}
    rows = [(code(column), names[hints[column]], notes.get(column, "")) for column in row.__struct_fields__]
    heading = f"## {name}\n\n{meaning[:1].upper()}{meaning[1:]} Days and the range of times go by {code(TIMES[name])}."
    return f"{heading}\n\n{table(('column', 'type', 'note'), rows)}"
