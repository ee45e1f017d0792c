"""Looking up one key in the state topic, by aiokafka, from its end backwards: the newest record of a key counts.

A conversation that is looked up has mostly changed lately, so it is in the part that is read first, however large the
partition is. What the end is, `partition_reader` says.
"""

import asyncio
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.kafka.errors import call
from consumer.kafka.partition_reader import read_records
from consumer.kafka.records import close_consumer, standalone_consumer
from consumer.query.lookup import Found, Unfinished
from consumer.settings import Settings

_DOING = "looking into the state topic"
_POLL_RECORDS_MAX = 200
"""How many records are compared before the event loop gets its turn."""
_FETCH_BYTES_MAX = 1_048_576
_FIRST_PART = 1_000
_GROWTH = 4
"""The last `_FIRST_PART` offsets are read first; each part before them spans `_GROWTH` times as many."""


class KafkaStateLookup:
    """Implements `query.lookup.StateTopic`, one search at a time. A search takes about `within_s` at most."""

    def __init__(self, settings: Settings, within_s: float) -> None:
        self._settings = settings
        self._within_s = within_s
        self._timeout_s = settings.tuning.request_timeout_ms / 1_000
        self._turn = asyncio.Lock()

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        """See `StateTopic.newest`."""
        async with self._turn:
            consumer = standalone_consumer(
                self._settings, auto_offset_reset="earliest", max_partition_fetch_bytes=_FETCH_BYTES_MAX
            )
            try:
                await call(self._timeout_s, consumer.start(), _DOING)
                return await self._search(consumer, TopicPartition(self._settings.state_topic, partition), key)
            finally:
                await close_consumer(consumer)

    async def _search(self, consumer: AIOKafkaConsumer, tp: TopicPartition, key: bytes) -> Found | Unfinished:
        until_s = asyncio.get_running_loop().time() + self._within_s
        consumer.assign([tp])
        begin = int((await call(self._timeout_s, consumer.beginning_offsets([tp]), _DOING))[tp])
        upper = int((await call(self._timeout_s, consumer.end_offsets([tp]), _DOING))[tp])
        length = _FIRST_PART
        while upper > begin:
            lower = max(begin, upper - length)
            try:
                async with asyncio.timeout_at(until_s):
                    values = await self._read_values(consumer, tp, key, lower, upper)
            except TimeoutError:
                return Unfinished(tp.partition, upper, begin)
            if values:
                return Found(tp.partition, "state_topic", values[-1])
            upper, length = lower, length * _GROWTH
        return Found(tp.partition, "state_topic", None)

    async def _read_values(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, key: bytes, lower: int, upper: int
    ) -> list[bytes | None]:
        """All values of a key in part of a partition, the newest last."""
        values: list[bytes | None] = []
        reading = read_records(
            consumer, {tp: lower}, {tp: upper}, _DOING, records_max=_POLL_RECORDS_MAX, timeout_s=self._timeout_s
        )
        async with aclosing(reading) as polls:
            async for fetched in polls:
                values += [record.value for record in fetched.get(tp, ()) if record.key == key]
        return values
