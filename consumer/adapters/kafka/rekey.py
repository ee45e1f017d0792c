"""Copying a topic into another, keyed by conversation id, exactly once; `runtime.rekey` says where it begins.

One transactional id for the pair of topics: whoever starts last fences the one before, settles its transaction, and
only then reads where it stood.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct, field
from msgspec.structs import replace

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.faults import world_error
from consumer.adapters.kafka.permissions import GROUP, TOPIC, Grant
from consumer.adapters.kafka.republisher import Republisher, Scope
from consumer.adapters.kafka.topic_reader import TopicReader
from consumer.core.record import Record
from consumer.runtime.ports import Misfit
from consumer.runtime.rekey import beginning
from consumer.runtime.republish import RekeyOutcome, rekeyed
from consumer.runtime.settings import Settings

_RECORDS_MAX: Final = 2_000
_BYTES_MAX: Final = 8 * 1_048_576
_STAGED_S_MAX: Final = 0.5
"""What a transaction holds at most, but for the records of one fetch, and how long they wait for others."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a rekey is: what this run has committed."""

    has_begun: bool = False
    """Whether it knows where to begin."""
    lost: int = 0
    """Offsets that nobody had read and that the source does not hold any more."""
    is_resumed: bool = False
    outcomes: Counter[RekeyOutcome] = field(default_factory=Counter)
    """Records by what became of their keys."""


async def rekey(
    settings: Settings,
    source: str,
    target: str,
    *,
    follow: bool,
    on_progress: Callable[[Progress], None],
    on_repair: Callable[[str], None],
) -> None:
    """Copy what the source held when it began, or with `follow` until it is cancelled. Raises WorldError.

    It may be cancelled or killed at any time: the next one goes on where the last transaction ended.
    """
    grants = [Grant(TOPIC, source, "SOURCE", ("Read",)), Grant(TOPIC, target, "TARGET", ("Read", "Write"))]
    async with TopicReader(settings) as reader:
        partitions = await reader.partitions(grants)
        scope = Scope(
            partitions,
            [TopicPartition(target, number) for number in range(partitions[target])],
            _group_of(settings, source, target),
            [TopicPartition(source, number) for number in range(partitions[source])],
        )
        name = f"rekey:{source}:{target}"
        async with Republisher(settings, reader.client, name, "rekey", scope, on_repair) as publisher:
            copying = _Copying(settings, source, target, reader, publisher, on_progress)
            await copying.begin(partitions)
            await copying.run(follow=follow)


class _Copying:
    """A rekey under way."""

    def __init__(
        self,
        settings: Settings,
        source: str,
        target: str,
        reader: TopicReader,
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
        self._group_id = _group_of(settings, source, target)
        self._next: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    async def begin(self, partitions: dict[str, int]) -> None:
        """Find out where to begin, and commit it if that is not done."""
        begins, self._ends = await self._reader.bounds(self._source, range(partitions[self._source]))
        target_begins, target_ends = await self._reader.bounds(self._target, range(partitions[self._target]))
        committed = await self._committed(list(begins))
        found = beginning(begins, committed, is_target_empty=target_begins == target_ends)
        if found is None:
            raise Misfit(
                f"topic {self._target!r} holds records, but no rekey from {self._source!r} is known to be under way "
                f"(group {self._group_id!r} has no offsets): name a TARGET that is empty"
            )
        self._next = found.starts
        if found.is_new:
            await self._publisher.publish([], self._offsets(found.starts))
        self._progress = Progress(
            has_begun=True, lost=found.lost, is_resumed=any(at is not None for at in committed.values())
        )
        self._on_progress(self._progress)

    async def run(self, *, follow: bool) -> None:
        """Copy to the end."""
        staged: list[Record] = []
        staged_bytes, since_s = 0, 0.0
        ends = None if follow else self._ends
        async with aclosing(self._reader.read(self._source, self._next, ends)) as parts:
            async for part in parts:
                if part and not staged:
                    since_s = time.monotonic()
                staged += part
                staged_bytes += sum(len(each.value or b"") for each in part)
                is_full = len(staged) >= _RECORDS_MAX or staged_bytes >= _BYTES_MAX
                if staged and (is_full or not part or time.monotonic() - since_s >= _STAGED_S_MAX):
                    await self._commit(staged)
                    staged, staged_bytes = [], 0
        if staged:
            await self._commit(staged)

    async def _commit(self, records: Sequence[Record]) -> None:
        found = [rekeyed(record, self._target, self._rules) for record in records]
        offsets = {record.partition: record.next_offset for record in records}
        await self._publisher.publish([each.copy for each in found], self._offsets(offsets))
        outcomes = self._progress.outcomes + Counter(each.outcome for each in found)
        self._progress = replace(self._progress, outcomes=outcomes)
        self._on_progress(self._progress)

    def _offsets(self, offsets: dict[int, int]) -> dict[TopicPartition, int]:
        return {TopicPartition(self._source, number): at for number, at in offsets.items()}

    async def _committed(self, partitions: list[int]) -> dict[int, int | None]:
        """The group's offsets. The producer has been started before, so that none is still on its way."""
        asked = coordinator.committed(self._reader.client, self._group_id, self._source, partitions)
        try:
            found = await within(self._settings.request_timeout_ms / 1_000, asked)
        except (KafkaError, TimeoutError, OSError) as error:
            raise self._denied(error) from error
        return {number: None if each is None else each.next_offset for number, each in found.items()}

    def _denied(self, error: BaseException) -> Exception:
        told = world_error(error, f"reading the offsets of group {self._group_id!r}")
        if isinstance(told, Misfit):
            grant = Grant(GROUP, self._group_id, "CC_GROUP_ID, SOURCE, TARGET", ("Read",))
            return Misfit(grant.remedy(self._settings))
        return told


def _group_of(settings: Settings, source: str, target: str) -> str:
    """The group whose offsets say where a rekey stands."""
    return f"{settings.group_id}-rekey.{source}.{target}"
