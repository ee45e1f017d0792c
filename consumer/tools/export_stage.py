"""The rows of one partition of a table, on disk, until the partition was read and its files can be written.

Rows are known to stay only at the end of the log: a transition may be retracted by any later record, and a state
replaced. What stands at the moment is in an SQLite database in the folder of the export. All operations on a transition
are in one partition, as are all states of a conversation, so partitions can be staged one after the other.

1. Memory is bounded by `_CACHE_BYTES`, however long the log is and however many rows stand. The disk holds
   the rows of one partition as JSON.
2. The changes of a slice of records and the offset behind it are one transaction. So after a kill the stage is that of
   some offset, and reading goes on there.
3. Rows are in the order of (day, offset) on disk. Writing the files reads them once, without sorting.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, Self

from consumer.tools.export_rows import Change

_CACHE_BYTES: Final = 64 * 1_048_576
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows (
    day TEXT, offset INTEGER, key BLOB UNIQUE, lines BLOB, PRIMARY KEY (day, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (id INTEGER PRIMARY KEY, next_offset INTEGER);
"""


class Stage:
    """The rows of one partition of a table, as a context manager. Raises sqlite3.Error, if the disk is full as well."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, timeout=0)

    def __enter__(self) -> Self:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_BYTES // 1_024}")
        self._database.executescript(_SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @property
    def next_offset(self) -> int | None:
        """The offset behind the last record whose change is in; None if there was none."""
        found = self._database.execute("SELECT next_offset FROM position").fetchone()
        return None if found is None else int(found[0])

    def apply(self, changes: Iterable[tuple[int, Change]], next_offset: int) -> None:
        """Apply the changes of records, each with the record's offset, and remember the offset behind them."""
        with self._database as transaction:
            for offset, change in changes:
                if change.rows:
                    # The rows under the same key go by the UNIQUE of the table.
                    transaction.execute(
                        "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)",
                        (change.day, offset, change.key, b"\n".join(change.rows)),
                    )
                else:
                    transaction.execute("DELETE FROM rows WHERE key = ?", (change.key,))
            transaction.execute("INSERT OR REPLACE INTO position VALUES (0, ?)", (next_offset,))

    def days(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each day with its rows, in order of offset. The rows of a day have to be read before the next day."""
        rows = self._database.execute("SELECT day, lines FROM rows ORDER BY day, offset")
        for day, group in groupby(rows, key=lambda row: str(row[0])):
            yield day, (line for _, lines in group for line in lines.split(b"\n"))


def remove(path: Path) -> None:
    """Remove a stage that is no longer needed, if there is one."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
