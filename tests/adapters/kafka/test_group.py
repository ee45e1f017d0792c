"""Which partition a key belongs to, as the group member tells it."""

import pytest
from aiokafka import AIOKafkaConsumer

from consumer.adapters.kafka.group import GroupIntake
from tests.runtime.scenes import settings_of

MURMUR2 = {
    b"21": -973_932_308,
    b"foobar": -790_332_482,
    b"a-little-bit-long-string": -985_981_536,
    b"a-little-bit-longer-string": -1_486_304_829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58_897_971,
    b"abc": 479_470_107,
}
"""From the tests of Kafka's Java client."""


@pytest.mark.parametrize("count", [1, 3, 16, 1_000])
async def test_a_key_is_in_the_partition_in_which_kafkas_producers_put_it(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = GroupIntake(settings_of())
    try:
        assert intake.partition_of(b"abc") is None
        monkeypatch.setattr(AIOKafkaConsumer, "partitions_for_topic", lambda _, __: set(range(count)))
        for key, digest in MURMUR2.items():
            assert intake.partition_of(key) == (digest & 0x7FFF_FFFF) % count
    finally:
        await intake.stop()
