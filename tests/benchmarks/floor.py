"""What no consumer on aiokafka gets below: a bare loop over a topic, with or without decoding what it gives.

`python -m tests.benchmarks.floor NAME SETTINGS COUNT WITHIN_S` prints what COUNT records took, in seconds and in CPU
seconds. The clock starts when the partitions are assigned, not with the first record: by then much of the topic, or all
of it, is fetched already. The decoding is whole: also of participants that the worker has seen before and remembers.
"""

import asyncio
import sys
from collections.abc import Sequence

import msgspec
from aiokafka import TopicPartition

from consumer.adapters.kafka.group import GroupIntake, Listener
from consumer.core.topics import classify
from consumer.runtime.settings import Settings
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
            intake._consumer.seek(TopicPartition(settings.input_topic, partition), 0)
        starts.append(Spent.now())

    async def revoked(_: Sequence[int]) -> None:
        raise AssertionError("nobody else is in the group")

    intake = GroupIntake(settings)
    try:
        async with asyncio.timeout(within_s):
            await intake.start(Listener(assigned, revoked))
            while left > 0:
                fetched = await intake._consumer.getmany(timeout_ms=_FETCH_MS, max_records=settings.fetch_records_max)
                for some in fetched.values():
                    left -= len(some)
                    if decoding:
                        usable += sum(_participants(record.value) > 0 for record in some)
            spent = Spent.now().since(starts[0])
        if decoding and usable < count * _USABLE_MIN:
            raise RuntimeError(f"only {usable} of {count} values were decoded: this is no floor")
        return spent
    finally:
        await intake.stop()


def _participants(value: bytes) -> int:
    """Decode a value with all its participants; how many there were. The traffic has broken records: they have none."""
    try:
        payload = _PAYLOAD.decode(value)
        framed = payload.detail or payload
        decoder = _FLAT if classify(framed.topic_name or payload.detail_type).medium else _NESTED
        shown = (framed.event_body or payload).participants or ()
        return len([decoder.decode(each) for each in shown])
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
