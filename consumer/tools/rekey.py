"""Copy a topic into another one, keyed by conversation id, exactly once.

1. One transaction holds records and the offsets behind them, so each record is in the target once.
2. The offsets belong to a consumer group for this pair of topics, which no member ever joins. Every partition of the
   source gets an offset before the first record is written: offsets mean that a rekey has begun.
3. If there are no offsets but the target holds records, another writer filled it, or the broker has deleted the offsets
   of a rekey (`offsets.retention.minutes`). To start would write records twice, so it is refused.
4. If a committed offset lies before the first offset of the source, retention deleted records that no rekey had read.
   They are counted as lost, and the rest is copied.
5. There is one transactional id for the pair of topics. The run that starts last fences the one before and settles its
   transaction, and only then reads the offsets.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from consumer.core.reading import split
from consumer.core.record import Record
from consumer.kafka import coordinator
from consumer.kafka.acls import GROUP, TOPIC, Grant
from consumer.kafka.errors import call
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.republisher import Partition, Republisher, Scope
from consumer.settings import Settings
from consumer.tools.republish import RekeyOutcome, rekey_record
from consumer.worker.ports import Committed, ConfigurationError

_RECORDS_MAX: Final = 2_000
_BYTES_MAX: Final = 8 * 1_048_576
_STAGED_S_MAX: Final = 0.5
"""Past any of these a transaction is committed: it exceeds them by one fetch at most."""


class RekeyStart(Struct, frozen=True):
    """Where a rekey starts to read."""

    offsets: dict[int, int]
    """By partition of the source."""
    is_new: bool
    """Whether these offsets must be committed before anything is written."""
    lost: int
    """How many offsets retention deleted before they were read."""


def find_start(
    begins: Mapping[int, int], committed: Mapping[int, int | None], *, is_target_empty: bool
) -> RekeyStart | None:
    """Where to start, given the first offset of each partition of the source and the group's committed offsets.

    None if the target is in use.
    """
    known = {partition: offset for partition, offset in committed.items() if offset is not None}
    if not known and not is_target_empty:
        return None
    offsets = {partition: max(begin, known.get(partition, begin)) for partition, begin in begins.items()}
    lost = sum(offsets[partition] - offset for partition, offset in known.items())
    return RekeyStart(offsets, len(known) < len(begins), lost)


class Progress(Struct, frozen=True, kw_only=True):
    """What this run of a rekey has committed so far."""

    has_begun: bool = False
    """Whether it has found where to start."""
    lost: int = 0
    """See `RekeyStart.lost`."""
    is_resumed: bool = False
    outcomes: Counter[RekeyOutcome] = field(default_factory=Counter)
    """Records, by what happened to their keys."""


async def copy_topic(
    settings: Settings,
    source: str,
    target: str,
    *,
    follow: bool,
    on_progress: Callable[[Progress], None],
    on_repair: Callable[[str], None],
) -> None:
    """Copy what the source holds now, or with `follow` until the task is cancelled. Raises ExternalError.

    A run may be cancelled or killed at any time: the next one continues behind the last committed transaction.
    """
    grants = [Grant(TOPIC, source, "SOURCE", ("Read",)), Grant(TOPIC, target, "TARGET", ("Read", "Write"))]
    async with PartitionReader(settings) as reader:
        partitions = await reader.partitions(grants)
        scope = Scope(
            partitions,
            [(target, number) for number in range(partitions[target])],
            _group_id(settings, source, target),
            [(source, number) for number in range(partitions[source])],
        )
        name = f"rekey:{source}:{target}"
        async with Republisher(settings, reader.client, name, "rekey", scope, on_repair) as publisher:
            copier = _Copier(settings, source, target, reader, publisher, on_progress)
            await copier.begin(partitions)
            await copier.run(follow=follow)


class _Copier:
    """One run of a rekey."""

    def __init__(
        self,
        settings: Settings,
        source: str,
        target: str,
        reader: PartitionReader,
        publisher: Republisher,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._progress = Progress()
        self._settings = settings
        self._rules = settings.rules()
        self._source = source
        self._target = target
        self._reader = reader
        self._publisher = publisher
        self._on_progress = on_progress
        self._group_id = _group_id(settings, source, target)
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    async def begin(self, partitions: Mapping[str, int]) -> None:
        """Find out where to start, and commit those offsets if the group has none."""
        begins, self._ends = await self._reader.bounds(self._source, range(partitions[self._source]))
        target_begins, target_ends = await self._reader.bounds(self._target, range(partitions[self._target]))
        committed = await self._committed(list(begins))
        start = find_start(begins, committed, is_target_empty=target_begins == target_ends)
        if start is None:
            raise ConfigurationError(
                f"topic {self._target!r} holds records, but no rekey from {self._source!r} is known to be under way "
                f"(group {self._group_id!r} has no offsets): name a TARGET that is empty"
            )
        self._starts = start.offsets
        if start.is_new:
            await self._publisher.publish([], self._of_source(start.offsets))
        is_resumed = any(offset is not None for offset in committed.values())
        self._report(Progress(has_begun=True, lost=start.lost, is_resumed=is_resumed))

    async def run(self, *, follow: bool) -> None:
        """Copy up to the end."""
        staged: list[Record] = []
        staged_bytes, since_s = 0, 0.0
        ends = None if follow else self._ends
        async with aclosing(self._reader.read(self._source, self._starts, ends)) as slices:
            async for records in slices:
                if records and not staged:
                    since_s = time.monotonic()
                staged += records
                staged_bytes += sum(len(record.value or b"") for record in records)
                is_full = len(staged) >= _RECORDS_MAX or staged_bytes >= _BYTES_MAX
                if staged and (is_full or not records or time.monotonic() - since_s >= _STAGED_S_MAX):
                    await self._commit(staged)
                    staged, staged_bytes = [], 0
        if staged:
            await self._commit(staged)

    async def _commit(self, records: Sequence[Record]) -> None:
        rekeyed = [
            rekey_record(part, self._target, self._rules) for record in records for part in split(record, self._rules)
        ]
        offsets = {record.partition: record.next_offset for record in records}
        await self._publisher.publish([record.output for record in rekeyed], self._of_source(offsets))
        outcomes = self._progress.outcomes + Counter(record.outcome for record in rekeyed)
        self._report(replace(self._progress, outcomes=outcomes))

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        self._on_progress(progress)

    def _of_source(self, offsets: Mapping[int, int]) -> dict[Partition, int]:
        return {(self._source, number): offset for number, offset in offsets.items()}

    async def _committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The group's offsets. The producer has started before, so no commit is still on its way."""
        fetching = coordinator.find_committed(self._reader.client, self._group_id, self._source, partitions)
        what = f"reading the offsets of group {self._group_id!r}"
        try:
            committed: dict[int, Committed | None] = await call(
                self._settings.tuning.request_timeout_ms / 1_000, fetching, what
            )
        except ConfigurationError as error:
            grant = Grant(GROUP, self._group_id, "CC_GROUP_ID, SOURCE, TARGET", ("Read",))
            raise ConfigurationError(grant.remedy(self._settings)) from error
        return {number: None if found is None else found.next_offset for number, found in committed.items()}


def _group_id(settings: Settings, source: str, target: str) -> str:
    """The group whose offsets record how far a rekey is."""
    return f"{settings.group_id}-rekey.{source}.{target}"
