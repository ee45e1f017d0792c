"""Verify what the workers have published: read the four topics, one partition after the other, and compare them.

`verification` has the rules. What the group has committed is compared; the outputs of a partition are read a second
time only if differences are to be listed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct, field

from consumer.core.record import Record
from consumer.kafka.records import OffsetRange
from consumer.preflight.check_result import refuse
from consumer.settings import Settings
from consumer.tools.read_spans import OnRead, Track
from consumer.tools.topics_reader import TopicsReader
from consumer.tools.verification import ComparedTransition, Comparison, DifferenceKind, Verification, to_compared
from consumer.worker import offset_metadata
from consumer.worker.ports import ConfigurationError
from consumer.worker.standstill import LogEnd
from schemas.transition import Transition

_PER_CONVERSATION_MAX = 10
"""How many differences of one conversation are listed."""
_TRANSITION = msgspec.json.Decoder(Transition)


class ListedDifference(Struct, frozen=True, rename="camel", omit_defaults=True, tag_field="kind", tag="difference"):
    """One difference with both sides, as published in JSON."""

    partition: int
    conversation_id: str
    what: DifferenceKind
    path: str
    """Of a state: where in the document; empty for all of it. Of a transition: its id."""
    published: Any
    recomputed: Any
    more: int = 0
    """On the last listed difference of a conversation: how many more it has."""


class PartitionReport(Struct, frozen=True):
    """The result for one partition."""

    partition: int
    input: OffsetRange
    """The records that were recomputed."""
    first_ms: int | None
    """See `Verification.first_ms`."""
    comparison: Comparison


class Report(Struct):
    """The result for all partitions that were verified."""

    partitions: list[PartitionReport] = field(default_factory=list)
    total: Comparison = field(default_factory=Comparison)
    listed: int = 0
    """Conversations whose differences were listed."""
    undecided: Mapping[int, LogEnd] = field(default_factory=dict)
    """Where records are not compared because they wait for the end of a transaction."""


async def verify_topics(
    settings: Settings,
    partitions: Iterable[int],
    limit: int,
    track: Track,
    on_difference: Callable[[ListedDifference], None],
) -> Report:
    """Verify partitions of the input, all of them if none is given. Raises ExternalError.

    `on_difference` gets the differences of the first `limit` conversations that differ, as soon as they are found.
    """
    report = Report()
    async with TopicsReader(settings) as reader:
        refuse([reader.compaction])
        chosen = sorted(set(partitions)) or list(range(reader.partitions))
        await _check_partitions(settings, reader, chosen)
        for partition in chosen:
            verifier = _PartitionVerifier(settings, reader, partition, track)
            verification = await verifier.compare()
            listed = list(islice(verification.different, limit - report.listed))
            for difference in await verifier.list_differences(listed):
                on_difference(difference)
            report.listed += len(listed)
            report.total.add(verification.comparison)
            report.partitions.append(
                PartitionReport(partition, verifier.spans.input, verification.first_ms, verification.comparison)
            )
        report.undecided = await reader.find_undecided(chosen)
    return report


async def _check_partitions(settings: Settings, reader: TopicsReader, partitions: Sequence[int]) -> None:
    """Raise ConfigurationError if the input lacks one of the partitions, or the group has committed none of them."""
    reader.check_partition(partitions[-1])
    if not any([await reader.find_committed(partition) for partition in partitions]):
        raise ConfigurationError(
            f"the group {settings.group_id!r} (CC_GROUP_ID) has committed nothing of {settings.input_topic!r} "
            f"(CC_INPUT_TOPIC): check both, there is nothing to compare"
        )


class _Spans(Struct, frozen=True):
    """The offsets to read of one partition of each topic."""

    dead_letters: OffsetRange
    input: OffsetRange
    state: OffsetRange
    transitions: OffsetRange


class _PartitionVerifier:
    """Reads one partition of the four topics for a verification."""

    def __init__(self, settings: Settings, reader: TopicsReader, partition: int, track: Track) -> None:
        self.spans: _Spans
        """Set by `compare`."""
        self._settings = settings
        self._reader = reader
        self._partition = partition
        self._track = track
        self._verification: Verification

    async def compare(self) -> Verification:
        """Read everything up to what the group has committed, and compare."""
        settings = self._settings
        self.spans = spans = await self._find_spans()
        verification = Verification(settings.rules(), settings.input_topic, spans.input.begin, spans.input.end)
        count = sum(map(_length, (spans.dead_letters, spans.input, spans.state, spans.transitions)))
        with self._track(f"partition {self._partition}", count) as on_read:
            add_letters = _for_each(verification.add_dead_letter)
            await self._read(settings.dead_letters_topic, spans.dead_letters, on_read, add_letters)
            await self._read(settings.input_topic, spans.input, on_read, verification.add_input)
            await self._read(settings.state_topic, spans.state, on_read, _for_each(verification.add_state))
            verification.begin_transitions(is_complete=spans.transitions.begin == 0)
            add_transitions = _for_each(verification.add_transition)
            await self._read(settings.transitions_topic, spans.transitions, on_read, add_transitions)
        latest = await self._reader.find_committed(self._partition)
        verification.compare(None if latest is None else offset_metadata.parse(latest.metadata).stream_ms)
        self._verification = verification
        return verification

    async def list_differences(self, conversation_ids: Sequence[str]) -> list[ListedDifference]:
        """The differences of conversations, with both sides. It reads the outputs of the partition again."""
        if not conversation_ids:
            return []
        wanted = {conversation_id.encode(): conversation_id for conversation_id in conversation_ids}
        states: dict[str, bytes | None] = {}
        standing: dict[str, dict[str, ComparedTransition]] = defaultdict(dict)

        def add_state(record: Record) -> None:
            if record.key in wanted and self._verification.covers(record):
                states[wanted[record.key]] = record.value

        def add_transition(record: Record) -> None:
            if record.key in wanted and self._verification.covers(record):
                transition = _TRANSITION.decode(record.value or b"")
                if transition.op == "assert":
                    standing[wanted[record.key]][transition.id] = to_compared(transition)
                else:
                    standing[wanted[record.key]].pop(transition.id, None)

        settings, spans = self._settings, self.spans
        count = _length(spans.state) + _length(spans.transitions)
        with self._track(f"partition {self._partition}: both sides", count) as on_read:
            await self._read(settings.state_topic, spans.state, on_read, _for_each(add_state))
            await self._read(settings.transitions_topic, spans.transitions, on_read, _for_each(add_transition))
        return [
            difference
            for conversation_id in conversation_ids
            for difference in self._list(conversation_id, states.get(conversation_id), standing[conversation_id])
        ]

    def _list(
        self, conversation_id: str, state: bytes | None, standing: Mapping[str, ComparedTransition]
    ) -> list[ListedDifference]:
        differences = [
            ListedDifference(
                self._partition, conversation_id, what, difference.path, difference.published, difference.recomputed
            )
            for what, difference in self._verification.differences(conversation_id, state, standing)
        ]
        listed = differences[:_PER_CONVERSATION_MAX]
        if len(differences) > len(listed):
            listed[-1] = msgspec.structs.replace(listed[-1], more=len(differences) - len(listed))
        return listed

    async def _find_spans(self) -> _Spans:
        settings, partition = self._settings, self._partition
        committed = await self._reader.find_committed(partition)
        # The ends come after the offset, so that they are behind everything that was committed with it.
        source = await self._reader.span(settings.input_topic, partition)
        end = source.begin if committed is None else max(source.begin, min(source.end, committed.next_offset))
        return _Spans(
            await self._reader.span(settings.dead_letters_topic, partition),
            OffsetRange(source.begin, end),
            await self._reader.span(settings.state_topic, partition),
            await self._reader.span(settings.transitions_topic, partition),
        )

    async def _read(self, topic: str, span: OffsetRange, on_read: OnRead, add: Callable[[list[Record]], None]) -> None:
        async with aclosing(self._reader.read(topic, self._partition, span, on_read)) as slices:
            async for records in slices:
                try:
                    add(records)
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise ConfigurationError(
                        f"partition {self._partition} of {topic!r} holds a record before offset "
                        f"{records[-1].next_offset} that this service does not write: another producer writes to it, "
                        f"or another version of this service did"
                    ) from error


def _length(span: OffsetRange) -> int:
    return span.end - span.begin


def _for_each(add: Callable[[Record], None]) -> Callable[[list[Record]], None]:
    def add_all(records: list[Record]) -> None:
        for record in records:
            add(record)

    return add_all
