"""Which partition a key belongs to, and where the group member goes on reading."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.adapters.kafka import group
from consumer.adapters.kafka.group import GroupIntake
from tests.runtime.scenes import settings_of

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
async def test_a_key_is_in_the_partition_in_which_kafkas_producers_put_it(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = GroupIntake(settings_of())
    try:
        assert intake.partition_of(b"abc") is None
        monkeypatch.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda _, __: set(range(count)))
        for key, digest in MURMUR2.items():
            assert intake.partition_of(key) == (digest & 0x7FFF_FFFF) % count
    finally:
        await intake.stop()


class Reading:
    """A group member of a partition whose leader tells one end after another, the last for ever."""

    def __init__(self, intake: GroupIntake, monkeypatch: pytest.MonkeyPatch) -> None:
        self.intake = intake
        self.told: Iterator[int] = iter(())
        self.last = 0
        self.now_s = 0.0
        self.sought: list[int] = []
        consumer, client = intake._consumer, intake._consumer._client

        async def find_ends(_: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            self.last = next(self.told, self.last)
            return dict.fromkeys(tps, self.last)

        async def find_begins(_: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
            return dict.fromkeys(tps, 20)

        async def sleep(seconds: float) -> None:
            self.now_s += seconds

        async def update() -> bool:
            return True

        monkeypatch.setattr(group, "find_begins", find_begins)
        monkeypatch.setattr(group, "find_ends", find_ends)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(consumer, "seek", lambda _, offset: self.sought.append(offset))
        monkeypatch.setattr(client, "force_metadata_update", update)

    async def seek(self, offset: int | None, *ends: int) -> int:
        """Where it goes on from an offset, when these ends are told."""
        self.told = iter(ends)
        found = await self.intake.seek(0, offset)
        assert self.sought.pop() == found
        return found


@pytest.fixture
async def reading(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reading]:
    intake = GroupIntake(settings_of())
    stop: Callable[[], Any] = intake.stop
    with monkeypatch.context() as patched:
        yield Reading(intake, patched)
    await stop()


async def test_a_committed_offset_is_gone_on_from(reading: Reading) -> None:
    """Also where it is the first, or the one after the last."""
    assert [await reading.seek(offset, 100) for offset in (20, 50, 100)] == [20, 50, 100]


async def test_an_offset_that_retention_deleted_begins_anew(reading: Reading) -> None:
    """As does a group that never committed."""
    assert [await reading.seek(offset, 100) for offset in (None, 0, 19)] == [20, 20, 20]


async def test_an_end_that_is_told_late_is_no_reset(reading: Reading) -> None:
    """A leader that was suspended and has been replaced tells an older end, more than once."""
    assert await reading.seek(150, 100, 100, 100, 120, 150) == 150
    assert reading.now_s < group._STALE_S


async def test_an_offset_past_the_end_is_believed_in_the_end(reading: Reading) -> None:
    """The topic was made anew: its records are read from the beginning."""
    assert await reading.seek(150, 100) == 20
    assert reading.now_s >= group._STALE_S
