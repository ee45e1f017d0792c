"""Read a span of one partition and report the progress."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing

from consumer.core.record import Record
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.records import OffsetRange

OnRead = Callable[[int], None]
"""Called with the number of offsets read since the last call."""
Track = Callable[[str, int], AbstractContextManager[OnRead]]
"""Starts a progress bar, given a label and the number of offsets to read."""


async def read_span(
    reader: PartitionReader,
    topic: str,
    partition: int,
    span: OffsetRange,
    on_read: OnRead,
    poll_timeout_s: float | None = None,
) -> AsyncGenerator[list[Record], None]:
    """The committed records of a span, in order and in slices, as `PartitionReader.read` gives them.

    The calls of `on_read` add up to the length of the span, whatever part of it is markers.
    """
    offset = span.begin
    slices = reader.read(topic, {partition: span.begin}, {partition: span.end}, poll_timeout_s)
    async with aclosing(slices):
        async for records in slices:
            yield records
            if records:
                on_read(records[-1].next_offset - offset)
                offset = records[-1].next_offset
    on_read(span.end - offset)
