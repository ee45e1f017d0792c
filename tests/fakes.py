"""The ports of the runtime in memory: a broker that shows a transaction whole or not at all, and fences old producers.

Waiting for records moves the clock instead of taking time, so nothing here depends on how fast the machine is.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.runtime.bookmark import Ends, OutputName
from consumer.runtime.ports import Chunk, Committed, Effects, Fenced, Output, Unreachable, World, WorldError
from consumer.runtime.settlement import Settlement, Verdict
from consumer.runtime.standstill import Lag, Standstill
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally

WAIT_S = 10.0
"""How long a test waits for what has to happen."""

LEAST_WAIT_S = 0.000_1
"""A fetch that finds nothing takes some time: it makes up for what rounding leaves of a patience."""


async def until(happened: Callable[[], bool]) -> None:
    """Give the loop turns until something has happened."""
    async with asyncio.timeout(WAIT_S):
        while not happened():
            await asyncio.sleep(0)


async def turns(count: int = 200) -> None:
    """Give the loop turns in which something could happen that must not."""
    for _ in range(count):
        await asyncio.sleep(0)


class Clock:
    """A monotonic clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Partition:
    """One partition of every topic, as a reader of committed records sees it."""

    input: list[Record] = field(default_factory=list)
    committed: Committed | None = None
    state_log: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    transitions: list[Output] = field(default_factory=list)
    dead_letters: list[Output] = field(default_factory=list)
    commits: list[Effects] = field(default_factory=list)
    markers_end: int = 0
    """Behind the markers of transactions that follow the last record, if any do."""
    epoch: int = 0
    """Of the producer that opened last: any other is fenced."""

    undecided: Settlement = field(default_factory=Settlement)
    """What hangs of the last transaction."""
    shown: set[str] = field(default_factory=set)
    """The outputs that show a commit behind the ends of the committed offset."""
    decide: Callable[[Verdict], None] = lambda _: None
    """What happens when it is decided over what hangs."""

    def states(self) -> dict[bytes, bytes]:
        """What compaction would leave of the state topic."""
        newest = dict(self.state_log)
        return {key: state for key, state in newest.items() if state is not None}

    def take(self, effects: Effects) -> Ends:
        """Make a commit visible; returns where it ends in each output."""
        self.commits.append(effects)
        assert all(output.key is not None for output in effects.states)
        self.state_log.extend((output.key or b"", output.value) for output in effects.states)
        self.transitions.extend(effects.transitions)
        self.dead_letters.extend(effects.dead_letters)
        ends = Ends(
            len(self.state_log) if effects.states else None,
            len(self.transitions) if effects.transitions else None,
            len(self.dead_letters) if effects.dead_letters else None,
        )
        self.committed = effects.committed(ends)
        return ends


async def nothing() -> None:
    """What happens at a call unless a test wants something else to."""


class Broker:
    """All partitions. `calls` tells what was asked for, in order; `at` makes things happen at a call, once each."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.partitions: dict[int, Partition] = defaultdict(Partition)
        self.calls: list[str] = []
        self.clock = Clock()
        self.topic_id = ""
        self.fetch_waits = False
        """Whether a fetch without records waits until it is cancelled."""
        self._at: dict[str, list[Callable[[], Awaitable[None]]]] = defaultdict(list)
        for record in records:
            self.partitions[record.partition].input.append(record)

    def at(self, call: str, *reactions: Callable[[], Awaitable[None]]) -> None:
        """At the next calls of this name, one reaction each: `nothing`, `fails`, or a coroutine function of a test."""
        self._at[call].extend(reactions)

    def last_call(self) -> str:
        """What was asked for last, empty if nothing was."""
        return self.calls[-1] if self.calls else ""

    async def called(self, call: str, *shown: object) -> None:
        """Note a call and do what is to happen at it."""
        self.calls.append(" ".join([call, *map(str, shown)]))
        await asyncio.sleep(0)
        if self._at[call]:
            await self._at[call].pop(0)()


def fails(error: BaseException) -> Callable[[], Awaitable[None]]:
    """A reaction that raises."""

    async def reaction() -> None:
        raise error

    return reaction


class FakeIntake:
    """The group member that owns every partition."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._positions: dict[int, int] = {}

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> list[Record]:
        await self._broker.called("fetch", self._positions[partition])
        position = self._positions[partition]
        found = [each for each in self._broker.partitions[partition].input if each.offset >= position][:records_max]
        if found:
            self._positions[partition] = found[-1].next_offset
        elif self._broker.fetch_waits:
            await asyncio.Event().wait()
        else:
            self._broker.clock.now_s += max(timeout_s, LEAST_WAIT_S)
        return found

    async def confirm_membership(self) -> None:
        await self._broker.called("member")

    async def committed(self, partition: int) -> Committed | None:
        await self._broker.called("committed")
        return self._broker.partitions[partition].committed

    async def topic_id(self) -> str:
        return self._broker.topic_id

    async def seek(self, partition: int, next_offset: int | None) -> int:
        await self._broker.called("seek", next_offset)
        offsets = [each.offset for each in self._broker.partitions[partition].input]
        beginning, end = min(offsets, default=0), max(offsets, default=-1) + 1
        held = next_offset is not None and beginning <= next_offset <= end
        self._positions[partition] = next_offset if held and next_offset is not None else beginning
        return self._positions[partition]

    async def position(self, partition: int) -> int | None:
        position = max(self._positions[partition], self._broker.partitions[partition].markers_end)
        self._positions[partition] = position
        return position

    async def lag_records(self, partition: int) -> int | None:
        return sum(each.offset >= self._positions[partition] for each in self._broker.partitions[partition].input)


class FakeStateLog:
    """The state topic, read in chunks."""

    def __init__(self, broker: Broker, chunk_entries: int = 2) -> None:
        self._broker = broker
        self._chunk_entries = chunk_entries

    async def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        log = list(self._broker.partitions[partition].state_log)
        await self._broker.called("read", from_offset)
        offset = from_offset
        while True:
            entries = log[offset : offset + self._chunk_entries]
            offset += len(entries)
            yield Chunk(entries, offset, len(log))
            if offset >= len(log):
                return
            await self._broker.called("chunk")


class FakePublisher:
    """A producer with a transactional id per partition."""

    def __init__(self, broker: Broker, partition: int) -> None:
        self._broker = broker
        self._partition = broker.partitions[partition]
        self._epoch = 0
        self.closed = False

    async def open(self) -> None:
        await self._broker.called("open")
        self._partition.epoch += 1
        self._epoch = self._partition.epoch

    async def settlement(self) -> Settlement:
        found = self._partition
        stable = Ends(len(found.state_log), len(found.transitions), len(found.dead_letters))
        return msgspec.structs.replace(found.undecided, stable=stable)

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        await self._broker.called("shows", output, from_offset)
        return output in self._partition.shown

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        assert settlement.hanging == self._partition.undecided.hanging
        await self._broker.called("settle", verdict)
        self._partition.decide(verdict)

    async def confirm(self) -> None:
        if self._partition.undecided.hangs:
            raise Unreachable("the last commit hangs")

    async def commit(self, effects: Effects) -> Ends:
        assert not self.closed
        effects = msgspec.structs.replace(
            effects,
            states=list(effects.states),
            transitions=list(effects.transitions),
            dead_letters=list(effects.dead_letters),
        )
        await self._broker.called("commit", effects.next_offset)
        if self._epoch != self._partition.epoch:
            raise Fenced("another producer has opened")
        await self.confirm()
        ends = self._partition.take(effects)
        await self._broker.called("answer")
        return ends

    async def close(self) -> None:
        self._broker.calls.append("close")
        self.closed = True


class FakeTelemetry:
    """Keeps what it is told, as (name, what was told)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """Everything told under a name."""
        return [what for each, what in self.told if each == name]

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None) -> None:
        self.told.append(("committed", (partition, tally, duration_s, lag_records)))

    def commit_failed(self, partition: int, error: WorldError) -> None:
        self.told.append(("commit_failed", (partition, error)))

    def restored(self, partition: int, store: StateStore, duration_s: float) -> None:
        self.told.append(("restored", (partition, len(store), duration_s)))

    def restoring(self, partition: int, remaining: int) -> None:
        self.told.append(("restoring", (partition, remaining)))

    def transaction_repaired(self, partition: int, verdict: str, hanging: Sequence[str]) -> None:
        self.told.append(("transaction_repaired", (partition, verdict, list(hanging))))

    def offset_reset(self, partition: int, wanted: int, at: int) -> None:
        self.told.append(("offset_reset", (partition, wanted, at)))

    def lagging(self, partition: int, lag: Lag) -> None:
        self.told.append(("lagging", (partition, lag)))

    def stands_still(self, partition: int, standstill: Standstill, todo: str) -> None:
        self.told.append(("stands_still", (partition, standstill, todo)))

    def moves_again(self, partition: int) -> None:
        self.told.append(("moves_again", (partition,)))

    def lane_closed(self, partition: int, reason: str) -> None:
        self.told.append(("lane_closed", (partition, reason)))

    def breaker_opened(self, partition: int, cause: str) -> None:
        self.told.append(("breaker_opened", (partition, cause)))

    def rebalanced(self, kind: str, partitions: Sequence[int]) -> None:
        self.told.append(("rebalanced", (kind, list(partitions))))

    def spent(self, activity: str, seconds: float) -> None:
        self.told.append(("spent", (activity, seconds)))


def world_of(
    broker: Broker,
    telemetry: FakeTelemetry | None = None,
    wall_ms: int = 0,
    on_commit: Callable[[Effects], None] = lambda _: None,
) -> World:
    """The world as a worker on this broker sees it."""
    return World(
        intake=FakeIntake(broker),
        state_log=FakeStateLog(broker),
        new_publisher=lambda partition: FakePublisher(broker, partition),
        telemetry=telemetry or FakeTelemetry(),
        on_commit=on_commit,
        monotonic_s=broker.clock,
        wall_ms=lambda: wall_ms,
        version="1.2.3",
    )


UNREACHABLE = fails(Unreachable("the broker does not answer"))
