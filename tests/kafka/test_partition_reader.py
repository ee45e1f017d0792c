"""Reading partitions to their ends, at the embedded broker."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaProducer

from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.state_log import KafkaStateLog
from consumer.kafka.state_lookup import KafkaStateLookup
from consumer.query.lookup import Found, Unfinished
from consumer.settings import Settings
from consumer.tuning import Tuning
from consumer.worker.ports import Chunk, ConfigurationError, RetriableError, UnreadableError
from tests.kafka.batches import bomb, send

WAIT_S = 60.0
"""Far from what a busy machine takes."""
Entry = tuple[bytes | None, bytes | None]


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A broker with the input and the state topic."""
    with EmbeddedBroker() as broker:
        broker.create_topics(["in", "state"])
        yield Settings(
            bootstrap_servers=broker.bootstrap_servers,
            input_topic="in",
            state_topic="state",
            tuning=Tuning(fetch_records_max=2),
        )


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[PartitionReader]:
    async with PartitionReader(settings) as opened:
        yield opened


async def write(settings: Settings, topic: str, partition: int, entries: Sequence[Entry]) -> None:
    async with asyncio.timeout(WAIT_S), AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        for key, value in entries:
            await producer.send(topic, value, key=key, partition=partition)


def entries_of(count: int) -> list[Entry]:
    return [(b"k%d" % number, b"v%d" % number) for number in range(count)]


async def read(
    reader: PartitionReader, starts: dict[int, int], ends: dict[int, int], poll_timeout_s: float = WAIT_S
) -> list[tuple[int, int]]:
    """The partition and offset of each record. No part has more records than the settings allow."""
    offsets = []
    async with asyncio.timeout(WAIT_S), aclosing(reader.read("in", starts, ends, poll_timeout_s)) as parts:
        async for part in parts:
            assert len(part) <= 2
            offsets += [(record.partition, record.offset) for record in part]
    return offsets


async def test_partitions_are_read_from_start_to_end(settings: Settings, reader: PartitionReader) -> None:
    """Records at the end and after it are left out, and a partition without records between them ends at once."""
    await write(settings, "in", 0, entries_of(5))
    await write(settings, "in", 2, entries_of(4))
    begins, ends = await reader.bounds("in", range(3))
    assert (begins, ends) == ({0: 0, 1: 0, 2: 0}, {0: 5, 1: 0, 2: 4})
    offsets = await read(reader, {0: 1, 1: 0, 2: 0}, ends | {2: 3})
    assert sorted(offsets) == [(0, 1), (0, 2), (0, 3), (0, 4), (2, 0), (2, 1), (2, 2)]
    assert await read(reader, {0: 5}, {0: 5}) == []


async def test_batch_that_is_too_large_is_named(settings: Settings, reader: PartitionReader) -> None:
    """The records before it were read."""
    await write(settings, "in", 0, entries_of(3))
    await send(settings.bootstrap_servers, "in", 0, bomb("zstd", settings.decompressed_bytes_max))
    offsets: list[int] = []

    async def read_all() -> None:
        async with asyncio.timeout(WAIT_S), aclosing(reader.read("in", {0: 0}, {0: 4})) as parts:
            async for part in parts:
                offsets.extend(record.offset for record in part)

    with pytest.raises(UnreadableError) as refused:
        await read_all()
    assert offsets == [0, 1, 2]
    message = "reading 'in': partition 0 of 'in' has a batch from offset 3 to 3 of which [0-9]+ bytes decompress to"
    assert re.match(message, str(refused.value))
    assert "CC_DECOMPRESSED_BYTES_MAX" in str(refused.value)
    await send(settings.bootstrap_servers, "state", 1, bomb("gzip", settings.decompressed_bytes_max))
    with pytest.raises(UnreadableError, match="restoring from the state topic: partition 1"):
        await read_state(settings, 1, 0)


async def test_batch_that_is_too_large_may_be_passed_over(settings: Settings) -> None:
    """A record stands in for it, and what is behind it is read."""
    await write(settings, "in", 0, entries_of(3))
    await send(settings.bootstrap_servers, "in", 0, bomb("zstd", settings.decompressed_bytes_max))
    await write(settings, "in", 0, entries_of(2))
    await write(settings, "in", 1, entries_of(2))
    async with asyncio.timeout(WAIT_S), PartitionReader(settings, passes_over=True) as reader:
        records = [record async for part in reader.read("in", {0: 0, 1: 0}, {0: 6, 1: 2}) for record in part]
        assert sorted((record.partition, record.offset) for record in records) == [
            *((0, offset) for offset in range(6)),
            *((1, offset) for offset in range(2)),
        ]
        (stand_in,) = [record for record in records if record.unread]
        assert (stand_in.offset, stand_in.key, stand_in.value) == (3, None, None)
        await send(settings.bootstrap_servers, "state", 0, bomb("lz4", settings.decompressed_bytes_max))
        with pytest.raises(UnreadableError):  # only of the input
            [part async for part in reader.read("state", {0: 0}, {0: 1})]


async def test_end_that_is_not_reached_is_an_error(reader: PartitionReader) -> None:
    """The last stable offset never gets there while a transaction is open."""
    with pytest.raises(RetriableError, match="reading 'in' stands still: partition 3 at 0 of 7: a transaction is open"):
        await read(reader, {3: 0}, {3: 7}, poll_timeout_s=0.5)


async def test_reading_without_ends_waits_for_records(settings: Settings, reader: PartitionReader) -> None:
    async with asyncio.timeout(WAIT_S), aclosing(reader.read("in", {0: 0}, None)) as parts:
        assert await anext(parts) == []
        await write(settings, "in", 0, entries_of(1))
        while not (part := await anext(parts)):
            pass
    assert [(record.key, record.value, record.offset) for record in part] == [(b"k0", b"v0", 0)]


async def read_state(settings: Settings, partition: int, from_offset: int) -> list[Chunk]:
    async with asyncio.timeout(WAIT_S):
        return [chunk async for chunk in KafkaStateLog(settings).read(partition, from_offset)]


async def test_state_log_begins_and_ends_with_empty_chunks(settings: Settings) -> None:
    """A tombstone is an entry, and a record without a key is none."""
    await write(settings, "state", 1, [(b"a", b"1"), (None, b"2"), (b"a", None)])
    first, *middle, last = await read_state(settings, 1, 0)
    assert (first, last) == (Chunk([], 0, 3), Chunk([], 3, 3))
    assert [entry for chunk in middle for entry in chunk.entries] == [(b"a", b"1"), (b"a", None)]
    assert middle[-1].next_offset == 3
    assert await read_state(settings, 1, 5) == [Chunk([], 3, 3), Chunk([], 3, 3)]
    assert [chunk.entries for chunk in await read_state(settings, 1, 2)] == [[], [(b"a", None)], []]


async def test_state_log_needs_the_partition_of_the_input(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="has 4 partitions but this worker was assigned partition 4 of 'in'"):
        await read_state(settings, 4, 0)


async def test_lookup_finds_the_newest_value_of_a_key(settings: Settings) -> None:
    """Also in a part that is read later than the newest."""
    await write(settings, "state", 0, [(b"a", b"1"), (b"a", b"2"), (b"b", b"1"), *entries_of(1_500), (b"b", None)])
    lookup = KafkaStateLookup(settings, within_s=WAIT_S)
    assert await lookup.newest(0, b"a") == Found(0, "state_topic", b"2")
    assert await lookup.newest(0, b"b") == Found(0, "state_topic", None)
    assert await lookup.newest(0, b"c") == Found(0, "state_topic", None)
    assert await lookup.newest(1, b"a") == Found(1, "state_topic", None)


async def test_lookup_ends_when_its_time_has_passed(settings: Settings) -> None:
    await write(settings, "state", 0, entries_of(1_500))
    assert await KafkaStateLookup(settings, within_s=0).newest(0, b"k0") == Unfinished(0, 1_500, 0)
