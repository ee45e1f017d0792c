"""Reading a partition of the state topic, by aiokafka, to restore a lane."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from consumer.kafka.errors import call
from consumer.kafka.partition_reader import read_records
from consumer.kafka.patches.internals import client_of
from consumer.kafka.records import close_consumer, standalone_consumer
from consumer.settings import Settings
from consumer.worker.ports import Chunk, ConfigurationError

_DOING = "restoring from the state topic"
_CHUNK_RECORDS_MAX = 2_000


class KafkaStateLog:
    """Implements `worker.ports.StateLog`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.tuning.request_timeout_ms / 1_000

    async def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        """See `StateLog.read`; what the end is, `partition_reader` says. Raises ExternalError.

        The first and the last chunk are empty: they give the offsets at which reading begins and ends.
        """
        consumer = standalone_consumer(self._settings, auto_offset_reset="earliest")
        tp = TopicPartition(self._settings.state_topic, partition)
        try:
            await call(self._timeout_s, consumer.start(), _DOING)
            consumer.assign([tp])
            await self._check_partition(client_of(consumer), tp)
            end = int((await call(self._timeout_s, consumer.end_offsets([tp]), _DOING))[tp])
            start = min(from_offset, end)
            yield Chunk([], start, end)
            reading = read_records(
                consumer, {tp: start}, {tp: end}, _DOING, records_max=_CHUNK_RECORDS_MAX, timeout_s=self._timeout_s
            )
            async with aclosing(reading) as polls:
                async for fetched in polls:
                    if records := fetched.get(tp):
                        entries = [(record.key, record.value) for record in records if record.key is not None]
                        yield Chunk(entries, records[-1].offset + 1, end)
            yield Chunk([], end, end)
        finally:
            await close_consumer(consumer)

    async def _check_partition(self, client: AIOKafkaClient, tp: TopicPartition) -> None:
        """Raise ConfigurationError if the topic does not have a partition: no broker would report its end."""
        await call(self._timeout_s, client.force_metadata_update(), _DOING)
        partitions = client.cluster.partitions_for_topic(tp.topic)
        if partitions and tp.partition not in partitions:
            raise ConfigurationError(
                f"topic {tp.topic!r} (CC_STATE_TOPIC) has {len(partitions)} partitions but this worker was assigned "
                f"partition {tp.partition} of {self._settings.input_topic!r}: conversations may be in other "
                f"partitions now than their state; `conversation-consumer topics` says what to do"
            )
