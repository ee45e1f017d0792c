"""The page of queries with their results on generated traffic, which `python -m tests.docs.sql_page` writes into it."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
from msgspec.structs import replace

from consumer.core.record import Record
from consumer.kafka.records import partition_of
from consumer.simulator.traffic import Traffic, records
from consumer.tools.export_files import FileFormat
from tests.docs.pages import ROOT, text_of
from tests.strategies import TOPIC
from tests.tools.exports import SETTINGS, Topics, export

PAGE: Final = ROOT / "docs" / "how-to" / "query-with-sql.md"
TRAFFIC: Final = Traffic(seed=7, start_ms=1_767_254_400_000, conversations=4, records_per_s=0.25, delay_s_max=60.0)
"""From 2026-01-01T08:00 on, conversations of a natural speed."""
_RECORDS: Final = 2_000
_PARTITIONS: Final = 2
_QUEUES: Final = ("billing", "claims", "sales")
_ROWS_MAX: Final = 3
_QUEUE_ID: Final = re.compile(rb'("queueId":|"queue":\{"id":)"([0-9a-f])[0-9a-f-]{35}"')
_BLOCK: Final = re.compile(r"(```sql\n(SELECT|WITH)(.*?)```\n)(\n(?:\|[^\n]*\n)+)?", re.DOTALL)


@cache
def published() -> Topics:
    """What a worker publishes of generated traffic.

    The generator draws a queue for each conversation; here there are three. A record is published when those before it
    have arrived.
    """
    drafts = list(islice(records(TRAFFIC), _RECORDS))
    arrivals_ms = list(accumulate((draft.timestamp_ms for draft in drafts), max))
    topics = Topics(
        Record(
            TOPIC, partition_of(draft.key or b"", _PARTITIONS), offset, draft.timestamp_ms, draft.key,
            _QUEUE_ID.sub(_name_queue, draft.value), draft.headers,
        )
        for offset, draft in enumerate(drafts)
    )  # fmt: skip
    for (topic, _), log in topics.logs.items():
        if topic == SETTINGS.transitions_topic:
            log[:] = [replace(record, timestamp_ms=arrivals_ms[_source_offset(record)]) for record in log]
    return topics


def _name_queue(found: re.Match[bytes]) -> bytes:
    return b'%s"%s"' % (found[1], _QUEUES[int(found[2], 16) % len(_QUEUES)].encode())


def _source_offset(record: Record) -> int:
    (digits,) = re.findall(rb'"source":\{[^}]*"offset":(\d+)', record.value or b"")
    return int(digits)


@contextmanager
def database(file_format: FileFormat = "parquet") -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of the page on an export."""
    with TemporaryDirectory() as folder, duckdb.connect() as connection:
        asyncio.run(export(published(), Path(folder), format=file_format, tables=["transitions", "log", "states"]))
        (views,) = re.findall(r"```sql\n(CREATE.*?)```", text_of(PAGE), re.DOTALL)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(views.replace("'export/", f"'{folder}/").replace(".parquet'", f".{file_format}'"))
        yield connection


def queries() -> dict[str, str]:
    """The queries of the page by their headings."""
    sections = text_of(PAGE).split("\n### ")[1:]
    return {section.partition("\n")[0]: _block(section)[2] + _block(section)[3] for section in sections}


def _block(section: str) -> re.Match[str]:
    (block,) = _BLOCK.finditer(section)
    return block


def fill(connection: duckdb.DuckDBPyConnection) -> str:
    """The page, with the first rows of each result as a table below its query."""

    def add_result(block: re.Match[str]) -> str:
        found = connection.execute(block[2] + block[3])
        names = [column[0] for column in found.description or ()]
        rows = [names, ["---"] * len(names), *map(_cells, found.fetchmany(_ROWS_MAX))]
        return block[1] + "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)

    return _BLOCK.sub(add_result, text_of(PAGE))


def _cells(row: tuple[Any, ...]) -> list[str]:
    return [_format(cell) for cell in row]


def _format(cell: Any) -> str:
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M}"
    return "NULL" if cell is None else str(cell)


if __name__ == "__main__":
    with database() as made:
        PAGE.write_text(fill(made), encoding="utf-8")
