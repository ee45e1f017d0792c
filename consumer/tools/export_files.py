"""The files of an export: rows in three formats, and the manifest that says which of them are finished.

1. A file has its name only once it is whole: it is written under another name, synced, and renamed.
2. The manifest names the cut before the first record is read, and a file after that has its name. It is replaced as a
   whole. So after a kill, what the manifest names is there, and the rest is written again, to the same bytes.
3. Bytes depend on the rows alone: in Parquet also on the version of pyarrow. No time and no name of a machine is in
   them.
"""

import csv
import fcntl
import io
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, Self, get_type_hints

import msgspec
from msgspec import Struct

from consumer.core import timestamps
from consumer.tools.export_rows import Cut, Row, Selection, TableName
from schemas.state import Timestamp

FileFormat = Literal["parquet", "csv", "jsonl"]
MANIFEST: Final = "manifest.json"
_TEMPORARY: Final = ".{}.tmp"
_BATCH_ROWS: Final = 20_000
"""Rows in memory at a time, and in a row group of Parquet."""
_PRIVATE: Final = 0o700
"""Only the user's own: rows have ids of users, queues and customers."""


class DirectoryError(Exception):
    """The folder cannot take this export. The message says why."""


class Request(Struct, frozen=True, rename="camel"):
    """What an export was asked for. The same request continues it."""

    tables: list[TableName]
    format: FileFormat
    since: str
    """As it was typed, such as `7d`: it means the time that it meant at the start. Empty for no bound."""
    until: str
    media: list[str]
    queues: list[str]
    group_id: str
    topics: list[str]


class ExportedFile(Struct, frozen=True, rename="camel"):
    """A finished file."""

    path: str
    """Relative to the folder of the export."""
    rows: int
    bytes: int


class Part(Struct, frozen=True, rename="camel"):
    """One partition of a table."""

    table: TableName
    topic: str
    partition: int
    begin: int
    end: int
    """The offsets to read, from `begin` to before `end`."""
    cut: Cut
    files: list[ExportedFile] | None = None
    """None until all of them are finished."""


class Manifest(Struct, frozen=True, rename="camel"):
    """An export: what was asked for, as of when, and what is finished."""

    request: Request
    selection: Selection
    """The request's times are those of the start."""
    parts: list[Part]
    is_complete: bool = False


_MANIFEST: Final = msgspec.json.Decoder(Manifest)


class ExportDirectory:
    """The folder of an export, as a context manager that no other export enters. Raises DirectoryError and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise DirectoryError(f"another export writes to {str(self.path)!r}") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def load(self, request: Request) -> Manifest | None:
        """The export that was begun here; None if the folder is empty. It has to be of the same request."""
        try:
            manifest = _MANIFEST.decode((self.path / MANIFEST).read_bytes())
        except FileNotFoundError:
            if any(path.name != _TEMPORARY.format(MANIFEST) for path in self.path.iterdir()):
                raise DirectoryError(f"{str(self.path)!r} is not empty, and holds no export to go on with") from None
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DirectoryError(f"{MANIFEST} in {str(self.path)!r} is not of this version: {error}") from error
        if manifest.request != request:
            differing = [
                name for name in Request.__struct_fields__ if getattr(request, name) != getattr(manifest.request, name)
            ]
            raise DirectoryError(
                f"{str(self.path)!r} holds an export that differs in {', '.join(differing)}: name another folder"
            )
        return manifest

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        with _create(self.path / MANIFEST) as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")

    def stage_path(self, part: Part) -> Path:
        """Where the rows of a part are staged."""
        return self.path / f".{part.table}-{part.partition}.sqlite3"

    def write(
        self, part: Part, file_format: FileFormat, row: type[Row], day: str, lines: Iterator[bytes]
    ) -> Generator[ExportedFile | None, None, None]:
        """Write one file. It yields None while there is more to write, so that the caller can stop, then the file."""
        folder = self.path / part.table / f"day={day}"
        for parent in (folder.parent, folder):
            parent.mkdir(mode=_PRIVATE, exist_ok=True)
            _sync(parent.parent)
        path, rows = folder / f"partition-{part.partition:05}.{file_format}", 0
        # The writer closes before the file does, even if there was an error: pyarrow's writes as it closes.
        with _create(path) as file, closing(_WRITERS[file_format](file, row)) as writer:
            while batch := list(islice(lines, _BATCH_ROWS)):
                writer.write(batch)
                rows += len(batch)
                yield None
        yield ExportedFile(path.relative_to(self.path).as_posix(), rows, path.stat().st_size)


@contextmanager
def _create(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when the block ends without an error."""
    temporary = path.with_name(_TEMPORARY.format(path.name))
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Writer(Protocol):
    def write(self, lines: Sequence[bytes]) -> None:
        """Write rows, given as JSON objects."""

    def close(self) -> None:
        """Write what comes behind the last row."""


class _JsonLinesWriter:
    def __init__(self, file: IO[bytes], _: type[Row]) -> None:
        self._file = file

    def write(self, lines: Sequence[bytes]) -> None:
        self._file.write(b"\n".join(lines) + b"\n")

    def close(self) -> None:
        pass


class _CsvWriter:
    """As in RFC 4180, but for line ends: a header, and nothing where there is no value."""

    def __init__(self, file: IO[bytes], row: type[Row]) -> None:
        self._file = file
        self._decoder = msgspec.json.Decoder(row)
        self._write([row.__struct_fields__])

    def write(self, lines: Sequence[bytes]) -> None:
        self._write([list(map(_to_cell, msgspec.structs.astuple(self._decoder.decode(line)))) for line in lines])

    def close(self) -> None:
        pass

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())


def _to_cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


class _ParquetWriter:
    """Columns of text, `int64`, `bool` and `timestamp[ms, UTC]`."""

    def __init__(self, file: IO[bytes], row: type[Row]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415 - as above

        time = pa.timestamp("ms", "UTC")
        kinds: dict[Any, Any] = {Timestamp: time, str: pa.string(), bool: pa.bool_(), int: pa.int64()}
        kinds |= {hint | None: kind for hint, kind in kinds.items()}
        hints = get_type_hints(row, include_extras=True)
        self._types = {name: kinds[hints[name]] for name in row.__struct_fields__}
        self._times = {name for name, kind in self._types.items() if kind == time}
        self._pyarrow = pa
        self._decoder = msgspec.json.Decoder(row)
        self._writer = parquet.ParquetWriter(file, pa.schema(self._types.items()), compression="zstd")

    def write(self, lines: Sequence[bytes]) -> None:
        columns = zip(*(msgspec.structs.astuple(self._decoder.decode(line)) for line in lines), strict=True)
        arrays = [
            self._pyarrow.array(
                [value and timestamps.to_ms(value) for value in column] if name in self._times else column, kind
            )
            for (name, kind), column in zip(self._types.items(), columns, strict=True)
        ]
        self._writer.write_table(self._pyarrow.table(arrays, names=list(self._types)))

    def close(self) -> None:
        self._writer.close()


_WRITERS: Final[dict[FileFormat, Callable[[IO[bytes], type[Row]], _Writer]]] = {
    "parquet": _ParquetWriter,
    "csv": _CsvWriter,
    "jsonl": _JsonLinesWriter,
}
