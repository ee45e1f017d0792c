"""Exports of topics in memory: what a worker would have published, and a reader of it."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.engine.dead_letters import DeadLetterFormat, build
from consumer.kafka.records import OffsetRange
from consumer.settings import Settings
from consumer.tools.export import Exporter, find_parts
from consumer.tools.export_files import ExportDirectory, Manifest, Request
from consumer.tools.export_rows import Selection
from consumer.tools.read_spans import OnRead
from consumer.worker.ports import Committed
from tests.core.play import Played, play
from tests.worker.scenes import settings_of

SETTINGS = settings_of()
EVERYTHING = Selection()
SLICE = 7
"""Records that a reader gives at a time."""


class Topics:
    """The outputs of a worker that has consumed records; implements `Reader`."""

    def __init__(self, consumed: Iterable[Record], settings: Settings = SETTINGS) -> None:
        self.partitions = 0
        self.logs: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.begins: dict[tuple[str, int], int] = defaultdict(int)
        self.committed: dict[int, Committed] = {}
        self.on_slice: Callable[[], None] = lambda: None
        """Called before each slice of records."""
        self.settings = settings
        by_partition: dict[int, list[Record]] = defaultdict(list)
        for record in consumed:
            by_partition[record.partition].append(record)
        for partition, records in by_partition.items():
            self.partitions = max(self.partitions, partition + 1)
            self.consume(partition, records)

    def consume(self, partition: int, records: list[Record]) -> None:
        """Publish what records change that follow those that were consumed before."""
        settings = self.settings
        played = self.publish_transitions(partition, records)
        for key, state in played.states.items():
            self.publish(settings.state_topic, partition, key, state)
        for record, outcome in zip(records, played.outcomes, strict=True):
            if isinstance(outcome, DeadLettered):
                form = DeadLetterFormat(keep_payload=True, payload_bytes_max=1_000_000, version="1")
                letter = build(record, outcome, form)
                self.publish(settings.dead_letters_topic, partition, letter.key, letter.value, tuple(letter.headers))
        self.committed[partition] = Committed(records[-1].next_offset, "")

    def publish_transitions(self, partition: int, records: list[Record]) -> Played:
        """Publish the transitions alone."""
        played = play(records)
        for transition in played.log:
            value = msgspec.json.encode(transition)
            self.publish(self.settings.transitions_topic, partition, transition["conversationId"], value)
        return played

    def publish(
        self, topic: str, partition: int, key: str | bytes | None, value: bytes | None, headers: Any = ()
    ) -> None:
        """Append a record to an output; every third offset belongs to a marker."""
        log = self.logs[topic, partition]
        offset = log[-1].offset + 1 + (len(log) % 2) if log else 0
        encoded = key.encode() if isinstance(key, str) else key
        log.append(Record(topic, partition, offset, 1_800_000_000_000 + offset, encoded, value, headers))

    async def find_committed(self, partition: int) -> Committed | None:
        return self.committed.get(partition)

    async def span(self, topic: str, partition: int) -> OffsetRange:
        log = self.logs[topic, partition]
        return OffsetRange(self.begins[topic, partition], log[-1].next_offset + 1 if log else 0)

    async def read(
        self, topic: str, partition: int, span: OffsetRange, on_read: OnRead
    ) -> AsyncGenerator[list[Record], None]:
        assert self.begins[topic, partition] <= span.begin
        wanted = [record for record in self.logs[topic, partition] if span.begin <= record.offset < span.end]
        for first in range(0, len(wanted), SLICE):
            self.on_slice()
            yield wanted[first : first + SLICE]
            on_read(SLICE)
        yield []


@contextmanager
def quiet(_: str, __: int) -> Iterator[OnRead]:
    """Shows no progress."""
    yield lambda _: None


def request_of(topics: Topics, selection: Selection = EVERYTHING, **fields: Any) -> Request:
    default = Request(
        ["transitions"], "jsonl", selection.since or "", selection.until or "", selection.media, selection.queues,
        topics.settings.group_id, list(topics.settings.topics),
    )  # fmt: skip
    return replace(default, **fields)


async def export(topics: Topics, folder: Path, selection: Selection = EVERYTHING, **fields: Any) -> Manifest:
    """Export topics into a folder, or go on with it."""
    request = request_of(topics, selection, **fields)
    with ExportDirectory(folder) as directory:
        manifest = directory.load(request)
        if manifest is None:
            manifest = Manifest(request, selection, await find_parts(topics.settings, topics, request.tables))
            directory.save(manifest)
        return await Exporter(topics, directory, quiet).run(manifest)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table that was exported as JSON Lines, in the order of the files' names."""
    return [
        msgspec.json.decode(line)
        for path in sorted(folder.glob(f"{table}/*/*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]
