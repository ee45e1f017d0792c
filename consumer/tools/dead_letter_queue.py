"""Read the dead letters topic, and put dead letters back into the input; `redrive` has the rules."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Final, Self

from msgspec import Struct

from consumer.core.reasons import Reason
from consumer.engine.dead_letters import DeadLetter, is_marker, parse
from consumer.kafka.acls import TOPIC, Grant
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.records import OffsetRange
from consumer.kafka.republisher import Republisher, Scope
from consumer.settings import Settings
from consumer.tools.read_spans import OnRead, read_spans
from consumer.tools.redrive import (
    Batch,
    DeadLetterStatus,
    Decision,
    Destination,
    MarkerError,
    RedrivenOffsets,
    Selection,
    decide,
)
from consumer.tools.republish import redrive
from consumer.worker.ports import ConfigurationError

RATE_MAX: Final = 10_000.0
"""Dead letters per second."""
_COMMAND = "dead-letters redrive"
_LETTERS_MAX = 500
_BYTES_MAX = 8 * 1_048_576
"""At either of these a transaction is committed; a single dead letter may be larger."""

_WAIT_MS = 20
"""A fetch that waits at the end of a partition delays the command."""

Counts = Counter[tuple[str, Decision, Reason]]
"""Dead letters by reason, decision, and the reason for which they would fail again."""


class RedriveRequest(Struct, frozen=True, kw_only=True):
    """What to redrive, and how."""

    selection: Selection
    attempts_max: int
    """Leave a record that was redriven so often already."""
    rate: float
    """The most dead letters per second, up to `RATE_MAX`."""
    letters_max: int | None
    """The most dead letters in all; None for no limit."""
    again: bool
    """Send those that would fail again, and those that came back before."""
    execute: bool
    """Whether to write; without it the decisions are only counted."""


class DeadLetterQueue:
    """The dead letters topic, as an async context manager. Every method raises ExternalError."""

    def __init__(self, settings: Settings, *, to_write: bool = False) -> None:
        self._settings = settings
        self._topic = settings.dead_letters_topic
        self._reader = PartitionReader(settings, fetch_max_wait_ms=_WAIT_MS)
        self._grants = [
            Grant(TOPIC, self._topic, "CC_DEAD_LETTERS_TOPIC", ("Read", "Write") if to_write else ("Read",)),
            Grant(TOPIC, settings.input_topic, "CC_INPUT_TOPIC", ("Read", "Write") if to_write else ("Describe",)),
        ]
        self._partitions: dict[str, int] = {}
        self.total = 0
        """What the calls of `on_read` add up to: twice the offsets of the topic, since the markers are read first."""

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        try:
            self._partitions = await self._reader.partitions(self._grants)
            begins, ends = await self._reader.bounds(self._topic, range(self._partitions[self._topic]))
        except BaseException:
            await self._reader.__aexit__()
            raise
        self.total = 2 * (sum(ends.values()) - sum(begins.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.__aexit__()

    async def read(self, selection: Selection, on_read: OnRead) -> AsyncGenerator[DeadLetterStatus, None]:
        """The selected dead letters, in order of offset within each partition."""
        spans = await self._spans(range(self._partitions[self._topic]))
        redriven = await self._read_markers(spans, on_read)
        async with aclosing(self._read_letters(spans, on_read)) as letters:
            async for letter in letters:
                if selection.matches(letter):
                    yield DeadLetterStatus(letter, letter.offset in redriven[letter.partition])

    async def redrive(self, request: RedriveRequest, on_read: OnRead, on_repair: Callable[[str], None]) -> Counts:
        """Put the selected dead letters back into the input; returns what was decided about them.

        Dead letters beyond `letters_max` are not counted. With `execute` it takes over one partition after the other,
        so that no two redrives work on the same one. It may be cancelled or killed at any time.
        """
        counts: Counts = Counter()
        partitions = range(self._partitions[self._topic])
        if not request.execute:
            await self._redrive(partitions, request, counts, on_read, None)
            return counts
        pacer = _Pacer(request.rate)
        for partition in partitions:
            scope, client, name = self._scope(partition), self._reader.client, f"redrive:{partition}"
            async with Republisher(self._settings, client, name, _COMMAND, scope, on_repair) as publisher:
                sender = _Sender(self._settings, publisher, pacer)
                await self._redrive([partition], request, counts, on_read, sender)
            if _is_exhausted(request, counts):
                break
        return counts

    async def _redrive(
        self,
        partitions: Iterable[int],
        request: RedriveRequest,
        counts: Counts,
        on_read: OnRead,
        sender: "_Sender | None",
    ) -> None:
        spans = await self._spans(partitions)  # after the takeover, so that they hold all markers of other redrives
        redriven = await self._read_markers(spans, on_read)
        source, rules = self._settings.input_topic, self._settings.rules()
        destination = Destination(source, self._partitions[source], request.attempts_max, rules, request.again)
        async with aclosing(self._read_letters(spans, on_read)) as letters:
            async for letter in letters:
                if _is_exhausted(request, counts):
                    break
                goes_back = False
                if request.selection.matches(letter):
                    verdict = decide(letter, redriven[letter.partition], destination)
                    counts[letter.reason, verdict.decision, verdict.reason] += 1
                    goes_back = verdict.decision == "redrive"
                if sender is not None and goes_back:
                    await sender.add(letter)
                elif sender is not None:
                    sender.skip()
        if sender is not None:
            await sender.flush()

    def _scope(self, partition: int) -> Scope:
        """What a redrive of one partition of the dead letters writes: records, and markers."""
        source = self._settings.input_topic
        inputs = [(source, number) for number in range(self._partitions[source])]
        return Scope(self._partitions, [*inputs, (self._topic, partition)])

    async def _spans(self, partitions: Iterable[int]) -> dict[int, OffsetRange]:
        begins, ends = await self._reader.bounds(self._topic, partitions)
        return {partition: OffsetRange(begin, ends[partition]) for partition, begin in begins.items()}

    async def _read_markers(self, spans: Mapping[int, OffsetRange], on_read: OnRead) -> Mapping[int, RedrivenOffsets]:
        """What was redriven of each partition."""
        redriven = {partition: RedrivenOffsets() for partition in spans}
        async with aclosing(read_spans(self._reader, self._topic, spans, on_read)) as slices:
            async for records in slices:
                for record in records:
                    try:
                        redriven[record.partition].add(record)
                    except MarkerError as error:
                        raise ConfigurationError(
                            f"topic {self._topic!r} (CC_DEAD_LETTERS_TOPIC): cannot read which dead letters were "
                            f"redriven ({error}): use the version that wrote it"
                        ) from error
        return redriven

    async def _read_letters(
        self, spans: Mapping[int, OffsetRange], on_read: OnRead
    ) -> AsyncGenerator[DeadLetter, None]:
        async with aclosing(read_spans(self._reader, self._topic, spans, on_read)) as slices:
            async for records in slices:
                for record in records:
                    letter = None if is_marker(record) else parse(record)
                    if letter is not None:
                        yield letter


class _Sender:
    """Groups the dead letters of a partition into transactions and keeps to the rate."""

    def __init__(self, settings: Settings, publisher: Republisher, pacer: "_Pacer") -> None:
        self._settings = settings
        self._publisher = publisher
        self._pacer = pacer
        self._batch = Batch()
        self._bytes = 0

    async def add(self, letter: DeadLetter) -> None:
        self._batch.add(letter)
        self._bytes += len(letter.original.key or b"") + len(letter.original.value or b"")
        if len(self._batch.letters) >= self._pacer.burst or self._bytes >= _BYTES_MAX:
            await self.flush()

    def skip(self) -> None:
        self._batch.skip()

    async def flush(self) -> None:
        batch, self._batch, self._bytes = self._batch, Batch(), 0
        if not batch.letters:
            return
        rules = self._settings.rules()
        outputs = [redrive(letter, rules) for letter in batch.letters]
        await self._pacer.wait(len(outputs))
        marker = batch.marker(self._settings.dead_letters_topic, batch.letters[0].partition)
        await self._publisher.publish([*outputs, marker])


class _Pacer:
    """Allows `rate` dead letters per second on average, in bursts of about one second's."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_s = time.monotonic()
        self.burst = max(1, min(_LETTERS_MAX, int(rate)))

    async def wait(self, letters: int) -> None:
        """Wait until the next burst of so many may go."""
        now_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._free_s - now_s))
        self._free_s = max(self._free_s, now_s) + letters / self._rate


def _is_exhausted(request: RedriveRequest, counts: Counts) -> bool:
    """Whether the request's limit is reached."""
    return request.letters_max is not None and count_redriven(counts) >= request.letters_max


def count_redriven(counts: Counts) -> int:
    """How many dead letters go back into the input."""
    return sum(count for (_, decision, _), count in counts.items() if decision == "redrive")
