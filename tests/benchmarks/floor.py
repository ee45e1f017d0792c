"""What no consumer on aiokafka gets below: a bare loop over a topic, with or without decoding what it gives.

`python -m tests.benchmarks.floor NAME SETTINGS COUNT WITHIN_S` prints what COUNT records took, in seconds and in CPU
seconds. The clock starts when the partitions are assigned, not with the first record: by then much of the topic, or all
of it, is fetched already.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence

import msgspec

from consumer.adapters.kafka_group import GroupIntake, Listener
from consumer.runtime.settings import Settings
from schemas.inbound import Payload

_FETCH_MS = 200
_PAYLOAD = msgspec.json.Decoder(Payload)


class Spent(msgspec.Struct, frozen=True):
    """What a run took. CPU is user and system time."""

    seconds: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Spent":
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Spent") -> "Spent":
        return Spent(self.seconds - start.seconds, self.cpu_s - start.cpu_s)


async def measure(settings: Settings, count: int, *, decoding: bool, within_s: float) -> Spent:
    """Read `count` records with the worker's own consumer, as a new group."""
    starts: list[Spent] = []

    def assigned(_: Sequence[int]) -> None:
        starts.append(Spent.now())

    async def revoked(_: Sequence[int]) -> None:
        raise AssertionError("nobody else is in the group")

    intake = GroupIntake(settings)
    try:
        async with asyncio.timeout(within_s):
            await intake.start(Listener(assigned, revoked))
            while count > 0:
                fetched = await intake._consumer.getmany(timeout_ms=_FETCH_MS, max_records=settings.fetch_records_max)
                for some in fetched.values():
                    count -= len(some)
                    if decoding:
                        for record in some:
                            _decode(record.value)
        return Spent.now().since(starts[0])
    finally:
        await intake.stop()


def _decode(value: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # the traffic has broken records
        _PAYLOAD.decode(value)


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
