"""The partition of a key, and the offset from which the group member reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.kafka import group_consumer
from consumer.kafka.group_consumer import GroupConsumer
from consumer.kafka.records import partition_of
from tests.strategies import make_record
from tests.worker.scenes import settings_of

MURMUR2 = {
    b"21": -973_932_308,
    b"foobar": -790_332_482,
    b"a-little-bit-long-string": -985_981_536,
    b"a-little-bit-longer-string": -1_486_304_829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58_897_971,
    b"abc": 479_470_107,
}
"""From the tests of Kafka's Java client."""


@pytest.mark.parametrize("count", [1, 3, 16, 1_000])
async def test_key_is_in_the_partition_that_kafka_chooses(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    input_consumer = GroupConsumer(settings_of())
    try:
        assert input_consumer.find_candidates("abc") is None
        monkeypatch.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda _, __: set(range(count)))
        for key, digest in MURMUR2.items():
            assert input_consumer.find_candidates(key.decode()) == [(digest & 0x7FFF_FFFF) % count]
    finally:
        await input_consumer.stop()


async def test_candidates_are_those_of_the_newest_key(monkeypatch: pytest.MonkeyPatch) -> None:
    input_consumer = GroupConsumer(settings_of())
    fetched = [make_record({}, key='"x"'), make_record({}, key=None)]
    monkeypatch.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda _, __: set(range(1_000)))
    monkeypatch.setattr(input_consumer, "_fetch", AsyncMock(side_effect=[fetched, fetched[:1], fetched[1:], []]))
    plain, spelled = partition_of(b"abc", 1_000), partition_of(b'"abc"', 1_000)
    try:
        for candidates in ([plain], [spelled, plain], [spelled, plain], [spelled, plain]):
            await input_consumer.fetch(0, 500, 0)
            assert input_consumer.find_candidates("abc") == candidates
    finally:
        await input_consumer.stop()


async def test_input_topic_that_is_gone_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not known yet is none. It is looked for at once, not after the age of the metadata."""
    input_consumer = GroupConsumer(settings_of())
    partitions: set[int] | None = None
    updates: list[None] = []
    monkeypatch.setattr(group_consumer, "is_connected", lambda _: True)
    monkeypatch.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda _, __: partitions)
    monkeypatch.setattr(input_consumer._client, "force_metadata_update", lambda: updates.append(None))
    try:
        assert await input_consumer.fault() is None
        partitions = {0}
        assert await input_consumer.fault() is None
        partitions = None
        assert "the broker does not know the topic just now" in str(await input_consumer.fault())
        assert len(updates) == 1
    finally:
        await input_consumer.stop()


class Reading:
    """A group member, and a leader that reports one end after another and then repeats the last."""

    def __init__(self, input_consumer: GroupConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.input_consumer = input_consumer
        self.ends: Iterator[int] = iter(())
        self.last = 0
        self.now_s = 0.0
        self.sought: list[int] = []
        consumer, client = input_consumer._consumer, input_consumer._consumer._client

        async def find_ends(_: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            self.last = next(self.ends, self.last)
            return dict.fromkeys(tps, self.last)

        async def find_begins(_: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            return dict.fromkeys(tps, 20)

        async def sleep(seconds: float) -> None:
            self.now_s += seconds

        async def update() -> bool:
            return True

        monkeypatch.setattr(group_consumer, "find_begins", find_begins)
        monkeypatch.setattr(group_consumer, "find_ends", find_ends)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(consumer, "seek", lambda _, offset: self.sought.append(offset))
        monkeypatch.setattr(client, "force_metadata_update", update)

    async def seek(self, offset: int | None, *ends: int) -> int:
        """Where it reads from after a seek to an offset, if the leader reports these ends."""
        self.ends = iter(ends)
        next_offset = await self.input_consumer.seek(0, offset)
        assert self.sought.pop() == next_offset
        return next_offset


@pytest.fixture
async def reading(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reading]:
    input_consumer = GroupConsumer(settings_of())
    stop: Callable[[], Any] = input_consumer.stop
    with monkeypatch.context() as patched:
        yield Reading(input_consumer, patched)
    await stop()


async def test_end_that_is_reported_late_is_no_reset(reading: Reading) -> None:
    """A leader that was suspended and replaced reports an older end, more than once."""
    assert await reading.seek(150, 100, 100, 100, 120, 150) == 150
    assert reading.now_s < group_consumer._STALE_S


async def test_offset_that_stays_past_the_end_is_a_reset(reading: Reading) -> None:
    """The topic was deleted and created again: its records are read from the beginning."""
    assert await reading.seek(150, 100) == 20
    assert reading.now_s >= group_consumer._STALE_S
