"""Export what the workers have published as files: one partition of a table after the other, as of one cut.

The cut is what the group has committed at the start. Of each output it is found as `verify` finds it: records up to the
end of the log, read committed, but for the effects of later records of the input, which are known by their source. All
tables of an export show the effects of the same records.

An export that was interrupted or killed goes on with the cut of its start. Two things the topics can have lost by then:
retention deletes the first records, which is an error, and compaction removes states that were replaced, so that a
conversation which changed after the cut may be missing from `states`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec.structs import replace

from consumer.core.record import Record
from consumer.kafka.records import OffsetRange
from consumer.settings import Settings
from consumer.tools import export_stage
from consumer.tools.export_files import ExportDirectory, ExportedFile, Manifest, Part, Request
from consumer.tools.export_rows import ROWS, Cut, Selection, TableName, make_change
from consumer.tools.export_stage import Stage
from consumer.tools.read_spans import OnRead, Track
from consumer.tools.topics_reader import TopicsReader
from consumer.worker.ports import Committed, ConfigurationError


class Reader(Protocol):
    """What an export needs of `TopicsReader`."""

    partitions: int

    async def find_committed(self, partition: int) -> Committed | None:
        """See `TopicsReader`."""

    async def span(self, topic: str, partition: int) -> OffsetRange:
        """See `TopicsReader`."""

    def read(
        self, topic: str, partition: int, span: OffsetRange, on_read: OnRead
    ) -> AsyncGenerator[list[Record], None]:
        """See `TopicsReader`."""


async def export_topics(
    settings: Settings, path: Path, request: Request, selection: Selection, track: Track
) -> Manifest:
    """Export into a folder, or go on with the same export there. Raises ExternalError, DirectoryError and OSError."""
    with ExportDirectory(path) as directory:
        manifest = directory.load(request)
        if manifest is not None and manifest.is_complete:
            return manifest
        async with TopicsReader(settings) as reader:
            if manifest is None:
                manifest = Manifest(request, selection, await find_parts(settings, reader, request.tables))
                directory.save(manifest)
            return await Exporter(reader, directory, track).run(manifest)


def topic_of(settings: Settings, table: TableName) -> str:
    """The topic that holds a table."""
    match table:
        case "transitions" | "log":
            return settings.transitions_topic
        case "states":
            return settings.state_topic
        case "dead-letters":
            return settings.dead_letters_topic


async def find_parts(settings: Settings, reader: Reader, tables: Sequence[TableName]) -> list[Part]:
    """All partitions of the tables as of now. Raises ConfigurationError if the group has committed nothing."""
    committed = {partition: await reader.find_committed(partition) for partition in range(reader.partitions)}
    if not any(committed.values()):
        raise ConfigurationError(
            f"the group {settings.group_id!r} (CC_GROUP_ID) has committed nothing of {settings.input_topic!r} "
            f"(CC_INPUT_TOPIC): check both, there is nothing to export"
        )
    parts = []
    # The ends come after the offsets, so that they are behind everything that was committed with those.
    for table in tables:
        topic = topic_of(settings, table)
        for partition, offset in committed.items():
            span = await reader.span(topic, partition)
            cut = Cut(settings.input_topic, partition, 0 if offset is None else offset.next_offset)
            parts.append(Part(table, topic, partition, span.begin, span.end, cut))
    return parts


class Exporter:
    """Writes the files of an export."""

    def __init__(self, reader: Reader, directory: ExportDirectory, track: Track) -> None:
        self._reader = reader
        self._directory = directory
        self._track = track

    async def run(self, manifest: Manifest) -> Manifest:
        """Finish all parts that are not finished; returns the manifest with all files."""
        for index, part in enumerate(manifest.parts):
            path = self._directory.stage_path(part)
            if part.files is None:
                with Stage(path) as stage:
                    await self._read(part, manifest.selection, stage)
                    files = await self._write(part, manifest.request, stage)
                parts = [*manifest.parts[:index], replace(part, files=files), *manifest.parts[index + 1 :]]
                manifest = replace(manifest, parts=parts)
                self._directory.save(manifest)
            export_stage.remove(path)  # also that of a part whose removal was interrupted
        manifest = replace(manifest, is_complete=True)
        self._directory.save(manifest)
        return manifest

    async def _read(self, part: Part, selection: Selection, stage: Stage) -> None:
        """Stage the rows of a part, from where an earlier run of the export has stopped."""
        begin = stage.next_offset
        if begin is None:
            begin = part.begin
        now = await self._reader.span(part.topic, part.partition)
        if begin < part.end and not now.begin <= begin < part.end <= now.end:
            raise ConfigurationError(
                f"partition {part.partition} of {part.topic!r} no longer holds all that this export has to read, from "
                f"offset {begin} to {part.end}: start another one in an empty folder"
            )
        with self._track(f"{part.table}, partition {part.partition}", part.end - part.begin) as on_read:
            on_read(begin - part.begin)
            span = OffsetRange(begin, part.end)
            async with aclosing(self._reader.read(part.topic, part.partition, span, on_read)) as slices:
                async for records in slices:
                    if records:
                        _apply(part, selection, stage, records)
        stage.apply([], part.end)

    async def _write(self, part: Part, request: Request, stage: Stage) -> list[ExportedFile]:
        files = []
        for day, lines in stage.days():
            with closing(self._directory.write(part, request.format, ROWS[part.table], day, lines)) as writing:
                for written in writing:
                    if written is not None:
                        files.append(written)
                    await asyncio.sleep(0)  # so that a signal can stop it
        return files


def _apply(part: Part, selection: Selection, stage: Stage, records: Sequence[Record]) -> None:
    changes = []
    for record in records:
        try:
            change = make_change(part.table, record, part.cut, selection)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise ConfigurationError(
                f"offset {record.offset} of partition {part.partition} of {part.topic!r} holds a record that this "
                f"version of the service does not write: another producer writes to it, or another version did"
            ) from error
        if change is not None:
            changes.append((record.offset, change))
    stage.apply(changes, records[-1].next_offset)
