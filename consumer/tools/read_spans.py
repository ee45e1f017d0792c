"""Read spans of partitions and report the progress."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing

from consumer.core.record import Record
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.records import OffsetRange

OnRead = Callable[[int], None]
"""Called with the number of offsets read since the last call."""
Track = Callable[[str, int], AbstractContextManager[OnRead]]
"""Starts a progress bar, given a label and the number of offsets to read."""


async def read_spans(
    reader: PartitionReader,
    topic: str,
    spans: Mapping[int, OffsetRange],
    on_read: OnRead,
    poll_timeout_s: float | None = None,
) -> AsyncGenerator[list[Record], None]:
    """The committed records of spans by partition, side by side, in slices, as `PartitionReader.read` gives them.

    Within a partition they come in order. The calls of `on_read` add up to the length of all spans, whatever part of
    them is markers.
    """
    offsets = {partition: span.begin for partition, span in spans.items()}
    ends = {partition: span.end for partition, span in spans.items()}
    slices = reader.read(topic, offsets.copy(), ends, poll_timeout_s)
    async with aclosing(slices):
        async for records in slices:
            yield records
            newest = {record.partition: record.next_offset for record in records}
            on_read(sum(next_offset - offsets[partition] for partition, next_offset in newest.items()))
            offsets |= newest
    on_read(sum(ends[partition] - offset for partition, offset in offsets.items()))
