"""`export`: write what the workers have published to files, as tables."""

import importlib.util
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec

from consumer.cli.exit_codes import exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import progress
from consumer.cli.signals import run_until_terminated
from consumer.cli.tables import align
from consumer.cli.times import PublishedTime
from consumer.telemetry import logs
from consumer.tools.export import export_topics
from consumer.tools.export_files import MANIFEST, DirectoryError, ExportedFile, FileFormat, Manifest, Request
from consumer.tools.export_rows import Selection, TableName
from schemas.state import Media

_UNFILTERED: Final[TableName] = "dead-letters"
_NOT_GIVEN: Final = ("", None)


class _Bound(PublishedTime):
    """A time; the command gets it as it was typed, and in its published form."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `ParamType.convert`."""
        return value, super().convert(value, param, ctx)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@add_connection
@click.option("--format", "file_format", type=click.Choice(get_args(FileFormat)), required=True, help="Of the files.")
@click.option(
    "--table", "tables", type=click.Choice(get_args(TableName)), multiple=True, default=("transitions",),
    show_default=True, help="May be repeated.",
)  # fmt: skip
@click.option("--since", type=_Bound(), help="Rows of this time or later, such as 7d, or 'yesterday 14:00'.")
@click.option("--until", type=_Bound(), help="Rows before this time.")
@click.option("--media", type=click.Choice(get_args(Media)), multiple=True, help="Only this one; may be repeated.")
@click.option("--queue", "queues", metavar="ID", multiple=True, help="Only of this queue; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per file.")
def export(
    *,
    directory: Path,
    file_format: FileFormat,
    tables: tuple[TableName, ...],
    since: tuple[str, str] | None,
    until: tuple[str, str] | None,
    media: tuple[str, ...],
    queues: tuple[str, ...],
    as_json: bool,
) -> None:
    """Export what is published to files in DIRECTORY: Parquet, CSV or JSON Lines, a folder for each table and day.

    Tables are the transitions that stand, once corrections are taken into account; the log of all operations; the
    newest states, a row for each communication; and why records became dead letters. Times select transitions by when
    they happened, states by their newest snapshot, and dead letters by when they became some.

    All tables show the same moment: what the group had committed at the start. The same moment gives the same bytes.
    It reads only, joins no group, and may run beside the workers. Interrupted or killed, the same command goes on,
    as of the same moment. Parquet needs conversation-consumer[parquet].

    \b
    Examples:
      conversation-consumer export ./calls --format parquet --media call --since 7d
      conversation-consumer export ./all --format csv --table transitions --table states
      conversation-consumer export ./january --format jsonl --table log --since 2026-01-01 --until 2026-02-01

    Exit codes: 0 done; 1 a file cannot be written, or pyarrow is missing; 2 wrong options, or DIRECTORY holds something
    else; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130 interrupted; 143 ended by SIGTERM
    or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    if _UNFILTERED in tables and (media or queues):
        raise click.UsageError(f"--media and --queue cannot select from {_UNFILTERED}: they have neither")
    if file_format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.ClickException("Parquet needs pyarrow: install conversation-consumer[parquet]")
    settings = settings_or_exit()
    logs.mute()
    since_typed, since_time = since or _NOT_GIVEN
    until_typed, until_time = until or _NOT_GIVEN
    selection = Selection(since_time, until_time, sorted(set(media)), sorted(set(queues)))
    request = Request(
        list(dict.fromkeys(tables)),
        file_format,
        since_typed,
        until_typed,
        selection.media,
        selection.queues,
        settings.group_id,
        list(settings.topics),
    )
    try:
        with exit_on_external_error():
            manifest = run_until_terminated(export_topics(settings, directory, request, selection, progress))
    except DirectoryError as error:
        raise click.UsageError(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{directory}: {reason}: the same command goes on from there") from error
    if as_json:
        for _, file in _list_files(manifest):
            write_json(msgspec.json.encode(file))
    else:
        for line in _summary_lines(manifest, directory):
            write_line(line)


def _list_files(manifest: Manifest) -> Sequence[tuple[TableName, ExportedFile]]:
    return [(part.table, file) for part in manifest.parts for file in part.files or ()]


def _summary_lines(manifest: Manifest, directory: Path) -> list[str]:
    rows = [["table", "rows", "files", "bytes"]]
    for table in manifest.request.tables:
        files = [file for of_table, file in _list_files(manifest) if of_table == table]
        counts = (sum(file.rows for file in files), len(files), sum(file.bytes for file in files))
        rows.append([table, *map(str, counts)])
    return [*align(rows), f"complete: {directory / MANIFEST} has the offsets and all files"]
