"""The floor of any consumer on aiokafka: a bare loop over a topic, with or without decoding the values.

`python -m tests.benchmarks.floor NAME SETTINGS COUNT WITHIN_S` prints the seconds and CPU seconds that COUNT records
took. The clock starts when the partitions are assigned: by the first record much of the topic, or all of it, has been
fetched. Every participant is decoded, even those that the worker would find in its cache.
"""

import asyncio
import sys
from collections.abc import Sequence

import msgspec
from aiokafka import TopicPartition

from consumer.core.notification_topics import classify
from consumer.kafka.group_consumer import GroupConsumer, Listener
from consumer.settings import Settings
from schemas.inbound import FlatParticipant, Participant, Payload
from tests.benchmarks.scratch import Spent

_FETCH_MS = 200
_USABLE_MIN = 0.9
_PAYLOAD = msgspec.json.Decoder(Payload)
_NESTED = msgspec.json.Decoder(Participant | None)
_FLAT = msgspec.json.Decoder(FlatParticipant | None)


async def measure(settings: Settings, count: int, *, decoding: bool, within_s: float) -> Spent:
    """Read `count` records with the worker's own consumer, as a new group."""
    starts: list[Spent] = []
    left, usable = count, 0

    def assigned(partitions: Sequence[int]) -> None:
        for partition in partitions:
            input_consumer._consumer.seek(TopicPartition(settings.input_topic, partition), 0)
        starts.append(Spent.now())

    async def revoked(_: Sequence[int]) -> None:
        raise AssertionError("the group has no other member")

    input_consumer = GroupConsumer(settings)
    try:
        async with asyncio.timeout(within_s):
            await input_consumer.start(Listener(assigned, revoked))
            while left > 0:
                fetched = await input_consumer._consumer.getmany(
                    timeout_ms=_FETCH_MS, max_records=settings.fetch_records_max
                )
                for batch in fetched.values():
                    left -= len(batch)
                    if decoding:
                        usable += sum(_decode(record.value) > 0 for record in batch)
            spent = Spent.now().since(starts[0])
        if decoding and usable < count * _USABLE_MIN:
            raise RuntimeError(f"only {usable} of {count} values were decoded: this is no floor")
        return spent
    finally:
        await input_consumer.stop()


def _decode(value: bytes) -> int:
    """Decode a value and all its participants; returns their number, 0 for a broken record."""
    try:
        payload = _PAYLOAD.decode(value)
        framed = payload.detail or payload
        decoder = _FLAT if classify(framed.topic_name or payload.detail_type).medium else _NESTED
        participants = (framed.event_body or payload).participants or ()
        return len([decoder.decode(participant) for participant in participants])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


if __name__ == "__main__":
    _, _name, _settings, _count, _within_s = sys.argv
    _spent = asyncio.run(
        measure(
            msgspec.json.decode(_settings, type=Settings),
            int(_count),
            decoding=_name == "decode_floor",
            within_s=float(_within_s),
        )
    )
    sys.stdout.buffer.write(msgspec.json.encode(_spent))
