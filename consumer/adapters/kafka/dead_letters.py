"""Reading the dead letters topic, and putting dead letters back into the input; `runtime.redrive` says how and why."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Self

from aiokafka import TopicPartition
from msgspec import Struct

from consumer.adapters.kafka.permissions import TOPIC, Grant
from consumer.adapters.kafka.republisher import Republisher, Scope
from consumer.adapters.kafka.topic_reader import TopicReader
from consumer.core.record import Record
from consumer.runtime.dead_letters import DeadLetter, opened
from consumer.runtime.ports import Misfit
from consumer.runtime.redrive import Batch, Destination, Fate, Ledger, MarkerError, Selection, fate, is_marker
from consumer.runtime.republish import redriven
from consumer.runtime.settings import Settings

RATE_MAX: Final = 10_000.0
_DOING = "dead-letters redrive"
_LETTERS_MAX = 500
_BYTES_MAX = 8 * 1_048_576
"""What a transaction holds at most, unless a single letter is larger."""

OnRead = Callable[[int], None]
"""Told how many more of `Letters.total` offsets were passed."""
Counts = Counter[tuple[str, Fate]]
"""Dead letters by reason and fate."""


class Sight(Struct, frozen=True):
    """A dead letter, and whether it was redriven."""

    letter: DeadLetter
    is_redriven: bool


class Order(Struct, frozen=True, kw_only=True):
    """What a redrive is to do."""

    selection: Selection
    attempts_max: int
    rate: float
    """Letters per second at most, up to `RATE_MAX`."""
    letters_max: int | None
    """Letters in all; None for no bound."""
    execute: bool
    """Whether anything is written."""


class Letters:
    """The dead letters topic, as an async context manager. Raises WorldError from every method."""

    def __init__(self, settings: Settings, *, to_write: bool = False) -> None:
        self._settings = settings
        self._topic = settings.dead_letters_topic
        self._reader = TopicReader(settings)
        self._grants = [
            Grant(TOPIC, self._topic, "CC_DEAD_LETTERS_TOPIC", ("Read", "Write") if to_write else ("Read",)),
            Grant(TOPIC, settings.input_topic, "CC_INPUT_TOPIC", ("Read", "Write") if to_write else ("Describe",)),
        ]
        self._partitions: dict[str, int] = {}
        self.total = 0
        """Offsets to be passed when all partitions are read: twice what they hold, for markers are read first."""

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

    async def read(self, selection: Selection, on_read: OnRead) -> AsyncGenerator[Sight, None]:
        """The dead letters that are asked for, by partition and offset."""
        for partition in range(self._partitions[self._topic]):
            span = await self._span(partition)
            ledger = await self._ledger(partition, span, on_read)
            async with aclosing(self._letters(partition, span, on_read)) as letters:
                async for letter in letters:
                    if letter is not None and selection.holds(letter):
                        yield Sight(letter, letter.offset in ledger)

    async def redrive(self, order: Order, on_read: OnRead, on_repair: Callable[[str], None]) -> Counts:
        """Put the dead letters that are asked for back into the input; what became of each of them.

        What was not reached for `letters_max` is not counted. With `execute` it takes partition after partition over,
        so that no two redrives work on one. It may be cancelled or killed at any time.
        """
        counts: Counts = Counter()
        pace = _Pace(order.rate)
        for partition in range(self._partitions[self._topic]):
            if order.execute:
                scope, client, name = self._scope(partition), self._reader.client, f"redrive:{partition}"
                async with Republisher(self._settings, client, name, _DOING, scope, on_repair) as publisher:
                    await self._redrive(partition, order, counts, on_read, _Sender(self._settings, publisher, pace))
            else:
                await self._redrive(partition, order, counts, on_read, None)
            if order.letters_max is not None and _sent(counts) >= order.letters_max:
                break
        return counts

    async def _redrive(
        self, partition: int, order: Order, counts: Counts, on_read: OnRead, sender: "_Sender | None"
    ) -> None:
        span = await self._span(partition)  # after the takeover: nothing that another redrive wrote is missed
        ledger = await self._ledger(partition, span, on_read)
        destination = Destination(
            self._settings.input_topic, self._partitions[self._settings.input_topic], order.attempts_max
        )
        async with aclosing(self._letters(partition, span, on_read)) as letters:
            async for letter in letters:
                if order.letters_max is not None and _sent(counts) >= order.letters_max:
                    break
                found = fate(letter, ledger, destination) if order.selection.holds(letter) else None
                if found is not None:
                    counts[letter.reason, found] += 1
                if sender is not None and found == "redrive":
                    await sender.add(letter)
                elif sender is not None:
                    sender.skip()
        if sender is not None:
            await sender.flush()

    def _scope(self, partition: int) -> Scope:
        """What is written while the dead letters of a partition go back."""
        source = self._settings.input_topic
        inputs = [TopicPartition(source, number) for number in range(self._partitions[source])]
        return Scope(self._partitions, [*inputs, TopicPartition(self._topic, partition)])

    async def _span(self, partition: int) -> tuple[int, int]:
        begins, ends = await self._reader.bounds(self._topic, [partition])
        return begins[partition], ends[partition]

    async def _ledger(self, partition: int, span: tuple[int, int], on_read: OnRead) -> Ledger:
        ledger = Ledger()
        async with aclosing(self._records(partition, span, on_read)) as records:
            async for record in records:
                try:
                    ledger.note(record)
                except MarkerError as error:
                    raise Misfit(
                        f"topic {self._topic!r} (CC_DEAD_LETTERS_TOPIC): cannot read which dead letters were redriven "
                        f"({error}): use the version that wrote it"
                    ) from error
        return ledger

    async def _letters(
        self, partition: int, span: tuple[int, int], on_read: OnRead
    ) -> AsyncGenerator[DeadLetter, None]:
        async with aclosing(self._records(partition, span, on_read)) as records:
            async for record in records:
                letter = None if is_marker(record) else opened(record)
                if letter is not None:
                    yield letter

    async def _records(self, partition: int, span: tuple[int, int], on_read: OnRead) -> AsyncGenerator[Record, None]:
        at, end = span
        async with aclosing(self._reader.read(self._topic, {partition: at}, {partition: end})) as parts:
            async for part in parts:
                for record in part:
                    yield record
                if part:
                    on_read(part[-1].next_offset - at)
                    at = part[-1].next_offset
        on_read(end - at)


class _Sender:
    """Collects the letters of a partition into transactions, no faster than it may."""

    def __init__(self, settings: Settings, publisher: Republisher, pace: "_Pace") -> None:
        self._settings = settings
        self._publisher = publisher
        self._pace = pace
        self._batch = Batch()
        self._bytes = 0

    async def add(self, letter: DeadLetter) -> None:
        self._batch.add(letter)
        self._bytes += len(letter.original.key or b"") + len(letter.original.value or b"")
        if len(self._batch.letters) >= self._pace.burst or self._bytes >= _BYTES_MAX:
            await self.flush()

    def skip(self) -> None:
        self._batch.skip()

    async def flush(self) -> None:
        batch, self._batch, self._bytes = self._batch, Batch(), 0
        if not batch.letters:
            return
        rules = self._settings.rules()
        copies = [redriven(letter, rules) for letter in batch.letters]
        await self._pace.wait(len(copies))
        marker = batch.marker(self._settings.dead_letters_topic, batch.letters[0].partition)
        await self._publisher.publish([*copies, marker])


class _Pace:
    """No more than `rate` letters per second on average, in bursts of about a second's."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_s = time.monotonic()
        self.burst = max(1, min(_LETTERS_MAX, int(rate)))

    async def wait(self, letters: int) -> None:
        """Wait until so many may go."""
        now_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._free_s - now_s))
        self._free_s = max(self._free_s, now_s) + letters / self._rate


def _sent(counts: Counts) -> int:
    return sum(count for (_, found), count in counts.items() if found == "redrive")
