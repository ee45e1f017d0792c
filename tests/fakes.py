"""The ports of the worker in memory: a broker with transactions, visible all or nothing, that fences old producers.

A fetch that waits for records moves the clock and takes no time, so no test depends on the speed of the machine.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.engine.choice import choose_engine
from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.settings import OUTPUTS, OutputName, Settings
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import (
    Chunk,
    Committed,
    Effects,
    ExternalError,
    FencedError,
    LaneContext,
    LaneRestored,
    RetriableError,
    UnreadableError,
)
from consumer.worker.settlement import Settlement, Verdict
from consumer.worker.standstill import Lag, LogEnd, Standstill

WAIT_S = 10.0
"""The longest wait for an event that has to happen."""

LEAST_WAIT_S = 0.000_1
"""An empty fetch moves the clock at least so far, as the rounding of a timeout can leave next to nothing of it."""


async def until(happened: Callable[[], bool]) -> None:
    """Run the event loop until a condition holds; fails after `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not happened():
            await asyncio.sleep(0)


async def turns(count: int = 200) -> None:
    """Run the event loop for some turns, before asserting that something did not happen."""
    for _ in range(count):
        await asyncio.sleep(0)


class Clock:
    """A monotonic clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


Log = list[Output | None]
"""The records of an output by offset; None is the marker that ends a transaction."""


@dataclass
class Partition:
    """One partition of every topic, as a reader of committed records sees it."""

    input: list[Record] = field(default_factory=list)
    committed: Committed | None = None
    logs: dict[OutputName, Log] = field(default_factory=lambda: {name: [] for name in OUTPUTS})
    commits: list[Effects] = field(default_factory=list)
    markers_end: int = 0
    """The offset behind the transaction markers that follow the last record of the input, if any do."""
    undecided_input: int = 0
    """Records at the end of the input in a transaction that is open."""
    epoch: int = 0
    """The epoch of the newest producer; every other one is fenced."""

    undecided: Settlement = field(default_factory=Settlement)
    """The undecided rest of the last transaction."""
    decide: Callable[[Verdict], None] = lambda _: None
    """Called with the verdict on the undecided transaction."""

    def read(self, name: OutputName) -> list[Output]:
        """The records of an output."""
        return [output for output in self.logs[name] if output is not None]

    @property
    def transitions(self) -> list[Output]:
        return self.read("transitions")

    @property
    def dead_letters(self) -> list[Output]:
        return self.read("dead_letters")

    def states(self) -> dict[bytes, bytes]:
        """The newest state by key, as compaction leaves it."""
        newest = {output.key: output.value for output in self.read("state")}
        return {key: state for key, state in newest.items() if key is not None and state is not None}

    @property
    def input_begin(self) -> int:
        """The first offset of the input."""
        return self.input[0].offset if self.input else self.input_stable

    @property
    def input_stable(self) -> int:
        """Where the input ends for a reader of committed records."""
        return max(self.input[-1].next_offset if self.input else 0, self.markers_end)

    def apply(self, effects: Effects) -> Ends:
        """Make a commit visible; returns its end offset in each output."""
        self.commits.append(effects)
        assert all(output.key is not None for output in effects.states)
        ends: dict[str, int] = {}
        written = {"state": effects.states, "transitions": effects.transitions, "dead_letters": effects.dead_letters}
        for name, log in self.logs.items():
            if written[name]:
                log.extend(written[name])
                ends[name] = len(log)
                log.append(None)
        self.committed = effects.committed(Ends(**ends))
        return Ends(**ends)


async def nothing() -> None:
    """A reaction that lets the call succeed."""


class Broker:
    """All partitions. `calls` lists the calls in order; `at` sets a reaction to each of the next calls of a name."""

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
        """Set a reaction to each of the next calls of a name: `nothing`, `fails`, or a coroutine function of a test."""
        self._at[call].extend(reactions)

    def last_call(self) -> str:
        """The newest call, empty before the first."""
        return self.calls[-1] if self.calls else ""

    async def record_call(self, call: str, *arguments: object) -> None:
        """Record a call and run its reaction."""
        self.calls.append(" ".join([call, *map(str, arguments)]))
        await asyncio.sleep(0)
        if self._at[call]:
            await self._at[call].pop(0)()


def fails(error: BaseException) -> Callable[[], Awaitable[None]]:
    """A reaction that raises."""

    async def reaction() -> None:
        raise error

    return reaction


class FakeInputConsumer:
    """The group member that owns every partition."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._positions: dict[int, int] = {}

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> list[Record]:
        await self._broker.record_call("fetch", self._positions[partition])
        position = self._positions[partition]
        log = self._broker.partitions[partition].input
        records = [record for record in log if record.offset >= position][:records_max]
        if records:
            self._positions[partition] = records[-1].next_offset
        elif self._broker.fetch_waits:
            await asyncio.Event().wait()
        else:
            self._broker.clock.now_s += max(timeout_s, LEAST_WAIT_S)
        return records

    async def confirm_membership(self) -> None:
        await self._broker.record_call("member")

    async def committed(self, partition: int) -> Committed | None:
        await self._broker.record_call("committed")
        return self._broker.partitions[partition].committed

    async def topic_id(self) -> str:
        return self._broker.topic_id

    async def seek(self, partition: int, next_offset: int | None) -> int:
        await self._broker.record_call("seek", next_offset)
        log = self._broker.partitions[partition]
        end = log.input_stable + log.undecided_input
        is_held = next_offset is not None and log.input_begin <= next_offset <= end
        self._positions[partition] = next_offset if is_held and next_offset is not None else log.input_begin
        return self._positions[partition]

    async def position(self, partition: int) -> int | None:
        position = self._positions[partition]
        log = self._broker.partitions[partition]
        if not log.input or position >= log.input[-1].next_offset:  # no record is left, but markers may be
            self._positions[partition] = position = max(position, log.markers_end)
        return position

    async def lag_records(self, partition: int) -> int | None:
        position = await self.position(partition)
        log = self._broker.partitions[partition]
        return None if position is None else max(0, log.input_stable + log.undecided_input - position)


class FakeLogEnds:
    """The leaders of the input's partitions. `answers` take precedence over what the broker holds."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.answers: dict[int, LogEnd | str] = {}

    async def find(self, partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        return {number: self.answers.get(number) or self._find_end(number) for number in partitions}

    def _find_end(self, number: int) -> LogEnd | str:
        log = self._broker.partitions.get(number)
        if log is None:
            return "no broker leads the partition"
        stable, undecided = log.input_stable, log.undecided_input
        return LogEnd(stable + undecided, stable, 0 if undecided else None, self._broker.topic_id)


class FakeStateLog:
    """The state topic, read in chunks."""

    def __init__(self, broker: Broker, chunk_entries: int = 2) -> None:
        self._broker = broker
        self._chunk_entries = chunk_entries

    async def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        log = list(self._broker.partitions[partition].logs["state"])
        await self._broker.record_call("read", from_offset)
        end = len(log)
        records = [
            (offset, output) for offset, output in enumerate(log) if output is not None and offset >= from_offset
        ]
        for first in range(0, len(records), self._chunk_entries):
            chunk = records[first : first + self._chunk_entries]
            last = chunk[-1][0] + 1
            yield Chunk([(output.key or b"", output.value) for _, output in chunk], last, end)
            if last < end:
                await self._broker.record_call("chunk")
        if not log or log[-1] is None or from_offset >= end:
            yield Chunk([], end, end)


def list_effects(effects: Effects) -> Effects:
    """The effects with their outputs in lists, which can be compared, and stay as they are."""
    return msgspec.structs.replace(
        effects,
        states=list(effects.states),
        transitions=list(effects.transitions),
        dead_letters=list(effects.dead_letters),
    )


class FakePublisher:
    """A producer with a transactional id per partition."""

    def __init__(self, broker: Broker, partition: int) -> None:
        self._broker = broker
        self._partition = broker.partitions[partition]
        self._epoch = 0
        self.closed = False

    async def open(self) -> None:
        await self._broker.record_call("open")
        self._partition.epoch += 1
        self._epoch = self._partition.epoch

    async def settlement(self) -> Settlement:
        partition = self._partition
        stable = Ends(**{name: len(log) for name, log in partition.logs.items()})
        return msgspec.structs.replace(partition.undecided, stable=stable)

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        await self._broker.record_call("shows", output, from_offset)
        return any(record is not None for record in self._partition.logs[output][from_offset:])

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        assert settlement.hanging == self._partition.undecided.hanging
        await self._broker.record_call("settle", verdict)
        self._partition.decide(verdict)

    async def confirm(self) -> None:
        if self._partition.undecided.hangs:
            raise RetriableError("the last commit hangs")

    async def commit(self, effects: Effects) -> Ends:
        assert not self.closed
        effects = list_effects(effects)
        await self._broker.record_call("commit", effects.next_offset)
        if self._epoch != self._partition.epoch:
            raise FencedError("another producer has opened")
        await self.confirm()
        ends = self._partition.apply(effects)
        await self._broker.record_call("answer")
        return ends

    async def close(self) -> None:
        self._broker.calls.append("close")
        self.closed = True


class FakeTelemetry:
    """Records every event as (name, arguments)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every event of a name."""
        return [arguments for event, arguments in self.events if event == name]

    def committed(self, partition: int, stats: CommitStats, duration_s: float, lag_records: int | None) -> None:
        self.events.append(("committed", (partition, stats, duration_s, lag_records)))

    def commit_failed(self, partition: int, error: ExternalError) -> None:
        self.events.append(("commit_failed", (partition, error)))

    def restored(self, partition: int, restored: LaneRestored) -> None:
        self.events.append(("restored", (partition, restored.conversations, restored.duration_s)))

    def restoring(self, partition: int, remaining: int) -> None:
        self.events.append(("restoring", (partition, remaining)))

    def transaction_repaired(self, partition: int, verdict: str, hanging: Sequence[str]) -> None:
        self.events.append(("transaction_repaired", (partition, verdict, list(hanging))))

    def offset_reset(self, partition: int, wanted: int, at: int) -> None:
        self.events.append(("offset_reset", (partition, wanted, at)))

    def lagging(self, partition: int, lag: Lag, still_since_s: float | None) -> None:
        self.events.append(("lagging", (partition, lag, still_since_s)))

    def stands_still(self, partition: int, standstill: Standstill, remedy: str) -> None:
        self.events.append(("stands_still", (partition, standstill, remedy)))

    def moves_again(self, partition: int) -> None:
        self.events.append(("moves_again", (partition,)))

    def lane_closed(self, partition: int, reason: str) -> None:
        self.events.append(("lane_closed", (partition, reason)))

    def breaker_opened(self, partition: int, cause: str) -> None:
        self.events.append(("breaker_opened", (partition, cause)))

    def unreadable(self, partition: int, error: UnreadableError) -> None:
        self.events.append(("unreadable", (partition, error)))

    def passed_over(self, partition: int, stand_in: Record) -> None:
        self.events.append(("passed_over", (partition, stand_in)))

    def rebalanced(self, kind: str, partitions: Sequence[int]) -> None:
        self.events.append(("rebalanced", (kind, list(partitions))))

    def spent(self, activity: str, seconds: float) -> None:
        self.events.append(("spent", (activity, seconds)))


def lane_context(
    broker: Broker,
    settings: Settings,
    telemetry: FakeTelemetry | None = None,
    wall_ms: int = 0,
    on_commit: Callable[[Effects, CommitStats], None] = lambda *_: None,
) -> LaneContext:
    """The context of a worker on this broker."""
    return LaneContext(
        input_consumer=FakeInputConsumer(broker),
        state_log=FakeStateLog(broker),
        new_publisher=lambda partition: FakePublisher(broker, partition),
        telemetry=telemetry or FakeTelemetry(),
        on_commit=on_commit,
        monotonic_s=broker.clock,
        wall_ms=lambda: wall_ms,
        new_engine=choose_engine(settings, "1.2.3"),
    )


UNREACHABLE = fails(RetriableError("the broker does not answer"))
