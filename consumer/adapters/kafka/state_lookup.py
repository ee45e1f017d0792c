"""Looking for one key in the state topic, by aiokafka, from its end backwards: the newest record of a key counts.

A conversation that somebody asks for has mostly changed lately, so it is found in the first parts read, whatever the
size of the partition. Only committed records count: the end is the last stable offset as of the beginning.
"""

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from consumer.adapters.kafka import records
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.faults import world_error
from consumer.runtime.lookup import Found, Unfinished
from consumer.runtime.settings import Settings

_POLL_MS = 200
_POLL_RECORDS_MAX = 200
"""Records unpacked before the loop gets its turn."""
_FETCH_BYTES_MAX = 1_048_576
_FIRST_PART = 1_000
_GROWTH = 4


class KafkaStateLookup:
    """Implements `runtime.lookup.StateTopic`, one search at a time. A search takes at most about `within_s`."""

    def __init__(self, settings: Settings, within_s: float) -> None:
        self._settings = settings
        self._within_s = within_s
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._turn = asyncio.Lock()

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        """See `StateTopic.newest`."""
        async with self._turn:
            consumer = records.standalone_consumer(
                self._settings, auto_offset_reset="earliest", max_partition_fetch_bytes=_FETCH_BYTES_MAX
            )
            tp = TopicPartition(self._settings.state_topic, partition)
            try:
                await within(self._timeout_s, consumer.start())
                return await self._search(consumer, tp, key)
            except (KafkaError, TimeoutError, OSError) as error:
                raise world_error(error, "looking into the state topic") from error
            finally:
                await records.stop(consumer)

    async def _search(self, consumer: AIOKafkaConsumer, tp: TopicPartition, key: bytes) -> Found | Unfinished:
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._within_s
        consumer.assign([tp])
        begin = int((await within(self._timeout_s, consumer.beginning_offsets([tp])))[tp])
        upper = int((await within(self._timeout_s, consumer.end_offsets([tp])))[tp])
        length = _FIRST_PART
        while upper > begin:
            lower = max(begin, upper - length)
            part = await _newest_between(consumer, tp, key, lower, upper, lambda: now_s() >= until_s)
            if part is None:
                return Unfinished(tp.partition, upper, begin)
            if part:
                return Found(tp.partition, "state_topic", part[0])
            upper, length = lower, length * _GROWTH
        return Found(tp.partition, "state_topic", None)


async def _newest_between(
    consumer: AIOKafkaConsumer, tp: TopicPartition, key: bytes, lower: int, upper: int, is_over: Callable[[], bool]
) -> list[bytes | None] | None:
    """The newest value of a key in part of a partition, none if it is not there; None if the time was over before."""
    newest: list[bytes | None] = []
    consumer.seek(tp, lower)
    while int(await consumer.position(tp)) < upper:
        if is_over():
            return None
        fetched = await consumer.getmany(tp, timeout_ms=_POLL_MS, max_records=_POLL_RECORDS_MAX)
        for record in fetched.get(tp, ()):
            if record.key == key and record.offset < upper:
                newest = [record.value]
        await asyncio.sleep(0)  # getmany does not suspend while it has records
    return newest
