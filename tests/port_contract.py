"""What every implementation of the ports of `consumer.worker.ports` promises: the fakes, and those on a real Kafka.

`tests.worker.test_ports` and `tests.live.test_ports` run these tests, each with a fixture `ports`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

import pytest
from msgspec import Struct

from consumer.core.record import Record
from consumer.engine.output import Output
from consumer.settings import OUTPUTS, OutputName
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.ports import (
    Chunk,
    Committed,
    Effects,
    FencedError,
    InputConsumer,
    LogEnds,
    Publisher,
    RetriableError,
    StateLog,
)
from consumer.worker.standstill import LogEnd

WAIT_S = 60.0
"""The longest wait for something that has to happen."""
_POLL_S = 0.05

Header = tuple[str, bytes | None]


class Message(Struct, frozen=True):
    """What a reader gets of a record, beside its offset."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Ports(Protocol):
    """The ports, with one partition of each topic that holds nothing yet."""

    @property
    def partition(self) -> int: ...

    @property
    def input_consumer(self) -> InputConsumer: ...

    @property
    def state_log(self) -> StateLog: ...

    @property
    def log_ends(self) -> LogEnds: ...

    def new_publisher(self) -> Publisher:
        """A publisher that is not open yet."""

    async def write(self, *messages: Message) -> None:
        """Write records to the input."""

    def write_uncommitted(self, *messages: Message) -> AbstractAsyncContextManager[None]:
        """Write records to the input in a transaction that stays open, and is aborted in the end."""

    async def delete_before(self, offset: int) -> None:
        """Delete the records of the input before an offset."""

    def fail_before_end(self, publisher: Publisher) -> None:
        """Let the next commit of a publisher fail when all is written, and the transaction is not ended."""

    async def read(self, output: OutputName) -> list[Message]:
        """The records of an output that a reader of committed records gets."""


INPUT = tuple(Message(b"c1", b"%d" % number, (("h", b"%d" % number),)) for number in range(5))
STATE = Output(b"c1", b"state")
TOMBSTONE = Output(b"c2", None)
TRANSITIONS = [Output(b"c1", b"first"), Output(b"c1", b"second")]
DEAD_LETTER = Output(b"k", b"rubbish", [("cc-reason", b"late"), ("empty", b"")])


def effects(next_offset: int, **outputs: list[Output]) -> Effects:
    """The effects of a commit; outputs that are not given are empty."""
    empty: dict[str, list[Output]] = {"states": [], "transitions": [], "dead_letters": []}
    return Effects(next_offset, OffsetMetadata(stream_ms=7), **(empty | outputs))


async def fetch(ports: Ports, count: int, records_max: int = 100) -> list[Record]:
    """Fetch until there are so many records."""
    records: list[Record] = []
    async with asyncio.timeout(WAIT_S):
        while len(records) < count:
            fetched = await ports.input_consumer.fetch(ports.partition, records_max, _POLL_S)
            assert len(fetched) <= records_max
            records += fetched
    return records


async def read_states(ports: Ports, from_offset: int) -> list[Chunk]:
    """All chunks; asserts what holds of any."""
    async with aclosing(ports.state_log.read(ports.partition, from_offset)) as reading:
        chunks = [chunk async for chunk in reading]
    offsets = [chunk.next_offset for chunk in chunks]
    assert offsets == sorted(offsets)
    assert {chunk.end_offset for chunk in chunks} == {offsets[-1]}
    return chunks


def entries_of(chunks: list[Chunk]) -> list[tuple[bytes, bytes | None]]:
    return [entry for chunk in chunks for entry in chunk.entries]


async def find_committed(ports: Ports) -> Committed | None:
    return await ports.input_consumer.committed(ports.partition)


async def find_end(ports: Ports) -> LogEnd:
    end = (await ports.log_ends.find([ports.partition]))[ports.partition]
    assert isinstance(end, LogEnd), end
    return end


async def find_offset(ports: Ports) -> int | None:
    committed = await find_committed(ports)
    return None if committed is None else committed.next_offset


async def commit(publisher: Publisher, effects: Effects) -> Ends:
    """Commit and wait for the markers, which may arrive later than the answer."""
    ends = await publisher.commit(effects)
    await publisher.confirm()
    return ends


@asynccontextmanager
async def publish(ports: Ports) -> AsyncIterator[Publisher]:
    """A publisher that is open."""
    publisher = ports.new_publisher()
    await publisher.open()
    try:
        yield publisher
    finally:
        await publisher.close()


class PortContract:
    """The tests."""

    async def test_records_are_fetched_once_and_in_order(self, ports: Ports) -> None:
        await ports.write(*INPUT)
        assert await ports.input_consumer.seek(ports.partition, None) == 0
        records = await fetch(ports, 2, records_max=2)
        records += await fetch(ports, len(INPUT) - len(records))
        assert [record.offset for record in records] == [0, 1, 2, 3, 4]
        assert [Message(record.key, record.value, record.headers) for record in records] == list(INPUT)
        assert {record.partition for record in records} == {ports.partition}
        assert await ports.input_consumer.fetch(ports.partition, 100, _POLL_S) == []

    async def test_lag_is_what_was_not_fetched(self, ports: Ports) -> None:
        await ports.write(*INPUT)
        await ports.input_consumer.seek(ports.partition, None)
        fetched = await fetch(ports, 1, records_max=2)
        assert await ports.input_consumer.lag_records(ports.partition) == len(INPUT) - len(fetched)
        assert await ports.input_consumer.position(ports.partition) == len(fetched)
        await fetch(ports, len(INPUT) - len(fetched))
        assert await ports.input_consumer.lag_records(ports.partition) == 0

    async def test_reading_begins_where_it_is_asked_to(self, ports: Ports) -> None:
        """At any offset that the partition holds, the one after the last included; else at its beginning."""
        await ports.write(*INPUT)
        await ports.delete_before(2)
        seek = ports.input_consumer.seek
        assert [await seek(ports.partition, offset) for offset in (None, 0, 1, 2, 5, 6, 4)] == [2, 2, 2, 2, 5, 2, 4]
        assert [record.offset for record in await fetch(ports, 1)] == [4]

    async def test_beginning_of_a_partition_without_records_is_its_end(self, ports: Ports) -> None:
        assert await ports.input_consumer.seek(ports.partition, None) == 0
        await ports.write(*INPUT)
        await ports.delete_before(5)
        assert await ports.input_consumer.seek(ports.partition, 3) == 5

    async def test_uncommitted_records_are_not_fetched(self, ports: Ports) -> None:
        """The position passes them once they are aborted, and the marker behind them."""
        await ports.write(INPUT[0])
        await ports.input_consumer.seek(ports.partition, None)
        async with ports.write_uncommitted(*INPUT[1:3]):
            assert [record.offset for record in await fetch(ports, 1)] == [0]
            assert await ports.input_consumer.fetch(ports.partition, 100, _POLL_S) == []
            end = await find_end(ports)
            assert (end.stable, end.end) == (1, 3)
            assert end.open_since_ms is not None
            assert await ports.input_consumer.seek(ports.partition, 2) == 2
            assert await ports.input_consumer.seek(ports.partition, 1) == 1
        async with asyncio.timeout(WAIT_S):
            while await ports.input_consumer.position(ports.partition) != 4:
                assert await ports.input_consumer.fetch(ports.partition, 100, _POLL_S) == []
        await ports.write(INPUT[3])
        assert [record.offset for record in await fetch(ports, 1)] == [4]
        assert await find_end(ports) == LogEnd(5, 5, topic_id=await ports.input_consumer.topic_id())

    async def test_end_that_is_not_known_has_a_reason(self, ports: Ports) -> None:
        missing = 10_000
        assert isinstance((await ports.log_ends.find([missing]))[missing], str)

    async def test_owner_is_a_member(self, ports: Ports) -> None:
        await ports.input_consumer.confirm_membership()

    async def test_commit_publishes_all_with_the_offset(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            assert await find_committed(ports) is None
            ends = await commit(
                publisher, effects(3, states=[STATE, TOMBSTONE], transitions=TRANSITIONS, dead_letters=[DEAD_LETTER])
            )
            assert ends == Ends(state=2, transitions=2, dead_letters=1)
            assert await find_committed(ports) == Committed(3, OffsetMetadata(stream_ms=7, ends=ends).text())
            assert await ports.read("state") == [Message(b"c1", b"state"), Message(b"c2", None)]
            assert await ports.read("transitions") == [Message(b"c1", b"first"), Message(b"c1", b"second")]
            assert await ports.read("dead_letters") == [Message(b"k", b"rubbish", tuple(DEAD_LETTER.headers))]

    async def test_commit_follows_the_marker_of_the_last_one(self, ports: Ports) -> None:
        """The offset's metadata keeps the ends of outputs that it writes nothing to."""
        async with publish(ports) as publisher:
            first = await commit(publisher, effects(1, states=[STATE], transitions=TRANSITIONS))
            assert first == Ends(state=1, transitions=2)
            metadata = OffsetMetadata(ends=first)
            second = await commit(publisher, Effects(2, metadata, [STATE], [], []))
            assert second == Ends(state=3)
            assert await find_committed(ports) == Committed(2, "state-offset=3 transitions-offset=2")

    async def test_commit_may_hold_an_offset_only(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            assert await commit(publisher, effects(9)) == Ends()
            assert await find_committed(ports) == Committed(9, "stream-ms=7")

    async def test_decided_commit_leaves_nothing_to_settle(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            await commit(publisher, effects(1, states=[STATE], transitions=TRANSITIONS))
            settlement = await publisher.settlement()
            assert not settlement.hangs
            assert settlement.stable == Ends(state=2, transitions=3, dead_letters=0)

    async def test_output_shows_committed_records_only(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            await commit(publisher, effects(1, transitions=TRANSITIONS))
            shown = [await publisher.shows("transitions", offset) for offset in (0, 1, 2, 3)]
            assert shown == [True, True, False, False]
            assert not await publisher.shows("dead_letters", 0)

    async def test_failed_commit_is_not_visible(self, ports: Ports) -> None:
        """Neither while its transaction is open, nor after the successor of its producer has opened."""
        failing = effects(3, states=[STATE], transitions=TRANSITIONS, dead_letters=[DEAD_LETTER])
        async with publish(ports) as publisher:
            ports.fail_before_end(publisher)
            with pytest.raises(RetriableError):
                await publisher.commit(failing)
            assert entries_of(await read_states(ports, 0)) == []
        async with publish(ports) as successor:
            assert not (await successor.settlement()).hangs
            assert [await ports.read(output) for output in OUTPUTS] == [[], [], []]
            assert await find_committed(ports) is None
            await commit(successor, failing)
        assert [len(await ports.read(output)) for output in OUTPUTS] == [1, 2, 1]
        assert await find_offset(ports) == 3

    async def test_earlier_owner_is_fenced(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            await commit(publisher, effects(1, states=[STATE]))
            async with publish(ports) as successor:
                with pytest.raises(FencedError):
                    await publisher.commit(effects(9, states=[STATE, TOMBSTONE]))
                await commit(successor, effects(2, states=[TOMBSTONE]))
        assert await ports.read("state") == [Message(b"c1", b"state"), Message(b"c2", None)]
        assert await find_offset(ports) == 2

    async def test_publisher_may_be_closed_at_any_time(self, ports: Ports) -> None:
        publisher = ports.new_publisher()
        await publisher.close()
        await publisher.open()
        await publisher.close()
        await publisher.close()

    async def test_committed_states_are_read_in_order(self, ports: Ports) -> None:
        async with publish(ports) as publisher:
            await commit(publisher, effects(1, states=[STATE, TOMBSTONE]))
            chunks = await read_states(ports, 0)
            assert entries_of(chunks) == [(b"c1", b"state"), (b"c2", None)]
            assert [chunk.next_offset for chunk in chunks if chunk.entries][-1] == 2
            assert chunks[-1].end_offset == 3
            await commit(publisher, effects(2, states=[Output(b"c3", b"new")]))
            assert entries_of(await read_states(ports, 3)) == [(b"c3", b"new")]

    async def test_state_log_that_ends_earlier_says_where(self, ports: Ports) -> None:
        """It was truncated, or created again."""
        async with publish(ports) as publisher:
            assert await read_states(ports, 0) == await read_states(ports, 7)
            await commit(publisher, effects(1, states=[STATE]))
            (chunk, *_) = await read_states(ports, 100)
            assert (chunk.entries, chunk.next_offset, chunk.end_offset) == ([], 2, 2)
