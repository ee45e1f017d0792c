"""Traffic that flows to a pipeline at its own pace, with whatever is to happen on the way."""

import asyncio
import codecs
import itertools
import json
import time
import uuid
from collections.abc import Iterator

from msgspec.structs import replace

from consumer.kafka.records import partition_of
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.traffic_writer import TrafficWriter
from tests.live.harness import PARTITIONS, now_ms

_TICK_S = 0.1


async def flow(settings: Settings, traffic: Traffic, seconds: float) -> None:
    """Write the traffic, which begins now, for so long as it happens: each record when its timestamp has come."""
    drafts = records(traffic)
    async with TrafficWriter(settings) as writer:
        until_s, coming = time.monotonic() + seconds, next(drafts)
        while time.monotonic() < until_s:
            due_ms, due = now_ms(), []
            while coming.timestamp_ms <= due_ms:
                due.append(coming)
                coming = next(drafts)
            await writer.write(due)
            await asyncio.sleep(_TICK_S)
        await writer.flush()


async def write(settings: Settings, drafts: Iterator[Draft]) -> None:
    """Write records at once."""
    async with TrafficWriter(settings) as writer:
        await writer.write(drafts)
        await writer.flush()


def of_partition(partition: int, traffic: Traffic) -> Iterator[Draft]:
    """The records of a traffic that the default partitioner of every client sends to one partition."""
    return (
        draft
        for draft in records(traffic)
        if draft.key is not None and partition_of(draft.key, PARTITIONS) == partition
    )


def damaged(count: int) -> Iterator[Draft]:
    """Records that are cut off, each of a conversation of its own, all in one partition."""
    keys = (str(uuid.uuid4()).encode() for _ in itertools.count())
    of_one_partition = (key for key in keys if partition_of(key, PARTITIONS) == 0)
    for number, key in enumerate(itertools.islice(of_one_partition, count)):
        yield Draft(key, b'{"topicName":"v2.users.u.conversations","eventBody":{"id":', now_ms(), number)


def skewed(count: int) -> Iterator[Draft]:
    """Conversations of three kinds in turn: with an event a minute ahead of its snapshot, with one an hour ahead, which
    cannot be, and from half a minute in the future."""
    for number in range(count):
        ahead_s, shifted_s = ((60, 0), (3_600, 0), (0, 30))[number % 3]
        at_ms = now_ms() + shifted_s * 1_000
        session = {"id": "s", "state": "connected", "providerEventTime": at_ms + ahead_s * 1_000}
        conversation = str(uuid.uuid4())
        body = {"id": conversation, "participants": [{"id": "p", "cobrowsesessions": [session]}]}
        value = {"topicName": "v2.users.u.conversations", "eventBody": body}
        yield Draft(conversation.encode(), json.dumps(value).encode(), at_ms, number)


def framed(count: int) -> Iterator[Draft]:
    """Conversations as a relay writes them that puts a byte order mark before each value."""
    for draft in skewed(count):
        yield replace(draft, value=codecs.BOM_UTF8 + draft.value)
