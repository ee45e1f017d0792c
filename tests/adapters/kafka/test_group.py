"""What the group member reads out of answers, and which partition a key belongs to."""

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3
from aiokafka.protocol.struct import Struct

from consumer.adapters.kafka.group import GroupIntake, committed_of
from consumer.runtime.ports import Committed, Misfit, Unreachable, WorldError
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

NOT_COORDINATOR, LOADING, NOT_AUTHORIZED, UNKNOWN_TOPIC = 16, 14, 30, 3


def answer(*partitions: tuple[int, int, str | None, int], error: int = 0, topic: str = "in") -> Struct:
    return OffsetFetchResponse_v3(0, [(topic, list(partitions))] if partitions else [], error)


def test_an_offset_with_its_metadata() -> None:
    assert committed_of(answer((7, 42, "stream-ms=1", 0)), "in", 7) == Committed(42, "stream-ms=1")
    assert committed_of(answer((6, 1, "", 0), (7, 42, None, 0)), "in", 7) == Committed(42, "")
    assert committed_of(OffsetFetchResponse_v1([("in", [(7, 42, "m", 0)])]), "in", 7) == Committed(42, "m")


def test_a_group_that_never_committed() -> None:
    assert committed_of(answer((7, -1, "", 0)), "in", 7) is None


@pytest.mark.parametrize(
    ("code", "kind"), [(NOT_COORDINATOR, Unreachable), (LOADING, Unreachable), (NOT_AUTHORIZED, Misfit)]
)
def test_an_answer_that_failed_as_a_whole_is_not_taken_for_no_commit(code: int, kind: type[WorldError]) -> None:
    with pytest.raises(kind, match="reading the committed offset"):
        committed_of(answer(error=code), "in", 7)


@pytest.mark.parametrize("code", [NOT_COORDINATOR, LOADING, UNKNOWN_TOPIC])
def test_an_error_of_the_partition_is_not_taken_for_no_commit(code: int) -> None:
    with pytest.raises(Unreachable):
        committed_of(answer((7, -1, "", code)), "in", 7)


def test_an_answer_about_another_partition_says_nothing() -> None:
    for other in (answer((6, 1, "", 0)), answer((7, 1, "", 0), topic="other"), answer()):
        with pytest.raises(Unreachable, match="partition 7"):
            committed_of(other, "in", 7)


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
