"""Reading a partition of the state topic to its end, by aiokafka.

Done means `position() >= end_offsets()`, the latter asked once with read_committed: other rules hang on transaction
markers, on holes that compaction left, or on an empty partition.
"""

import time
from collections.abc import AsyncGenerator

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from consumer.adapters.kafka import records
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.faults import world_error
from consumer.runtime.ports import Chunk, Misfit, Unreachable
from consumer.runtime.settings import Settings

_POLL_MS = 200
_CHUNK_RECORDS_MAX = 2_000


class KafkaStateLog:
    """Implements `runtime.ports.StateLog`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000

    async def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        """See `StateLog.read`. Yields at least once, an empty chunk if there is nothing to read. Raises WorldError."""
        consumer = records.standalone_consumer(self._settings, auto_offset_reset="earliest")
        tp = TopicPartition(self._settings.state_topic, partition)
        try:
            await within(self._timeout_s, consumer.start())
            consumer.assign([tp])
            await within(self._timeout_s, consumer._client.force_metadata_update())  # noqa: SLF001
            known = consumer.partitions_for_topic(tp.topic)
            if known and partition not in known:  # its end would be asked for in vain
                raise Misfit(
                    f"topic {tp.topic!r} (CC_STATE_TOPIC) has {len(known)} partitions but this worker was assigned "
                    f"partition {partition} of {self._settings.input_topic!r}: conversations may be in other "
                    f"partitions now than their state; `conversation-consumer topics` tells what has to be done"
                )
            end = int((await within(self._timeout_s, consumer.end_offsets([tp])))[tp])
            consumer.seek(tp, min(from_offset, end))
            yield Chunk([], min(from_offset, end), end)
            moved_s, position = time.monotonic(), -1
            while (at := int(await within(self._timeout_s, consumer.position(tp)))) < end:
                if at > position:
                    moved_s, position = time.monotonic(), at
                elif time.monotonic() - moved_s > self._timeout_s:
                    raise Unreachable(f"restoring partition {partition} stands still at {at} of {end}")
                fetched = await consumer.getmany(tp, timeout_ms=_POLL_MS, max_records=_CHUNK_RECORDS_MAX)
                found = fetched.get(tp, [])
                if found:
                    entries = [(each.key, each.value) for each in found if each.key is not None]
                    yield Chunk(entries, found[-1].offset + 1, end)
            yield Chunk([], end, end)
        except (KafkaError, TimeoutError, OSError) as error:
            raise world_error(error, "restoring from the state topic") from error
        finally:
            await records.stop(consumer)
