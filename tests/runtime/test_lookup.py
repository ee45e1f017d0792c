"""Where a conversation is looked for, and what is said where it is not."""

import pytest

from consumer.runtime.lookup import Found, Lookup, NotOpen, Unfinished
from consumer.runtime.worker import Worker
from tests.runtime.scenes import call
from tests.runtime.serving import in_partition, working

ELSEWHERE = 7


class FakeTopic:
    """The state topic with one conversation that another worker has."""

    def __init__(self, found: Found | Unfinished) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self._found = found

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        self.asked.append((partition, key))
        return self._found


THERE = Found(ELSEWHERE, "state_topic", b"state")


def lookup_of(worker: Worker, home: int | None, found: Found | Unfinished = THERE) -> tuple[Lookup, FakeTopic]:
    topic = FakeTopic(found)
    return Lookup(worker.lanes, topic, lambda _: home), topic


async def test_a_conversation_of_this_worker_is_found_wherever_its_producer_put_it() -> None:
    async with working([call(0, "alerting", 1), in_partition(call(0, "connected", 2, "c2"), 1)], (0, 1)) as worker:
        lookup, topic = lookup_of(worker, ELSEWHERE)
        for conversation_id, partition in (("c1", 0), ("c2", 1)):
            state = worker.lanes[partition].store.get(conversation_id)
            assert state is not None
            assert await lookup.find(conversation_id) == Found(partition, "worker", state)
        assert topic.asked == []


async def test_one_that_would_be_in_a_partition_of_this_worker_is_not_looked_for_elsewhere() -> None:
    async with working([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_of(worker, 0)
        assert await lookup.find("none") == Found(0, "worker", None)
        assert topic.asked == []


@pytest.mark.parametrize("found", [THERE, Found(ELSEWHERE, "state_topic", None), Unfinished(ELSEWHERE, 50, 0)])
async def test_one_of_another_worker_is_looked_for_in_the_state_topic(found: Found | Unfinished) -> None:
    async with working([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_of(worker, ELSEWHERE, found)
        assert await lookup.find("\udcff-é") == found
        assert topic.asked == [(ELSEWHERE, b"\xff-\xc3\xa9")]


@pytest.mark.parametrize("phase", ["opening", "fenced", "failing", "closed"])
async def test_a_lane_that_is_not_open_is_not_believed(phase: str) -> None:
    async with working([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_of(worker, 0)
        worker.lanes[0].phase = phase  # type: ignore[assignment]
        assert await lookup.find("c1") == NotOpen(0)
        assert topic.asked == []


async def test_a_lane_that_its_dead_letters_hold_knows_its_conversations() -> None:
    async with working([call(0, "alerting", 1)]) as worker:
        lookup, _ = lookup_of(worker, 0)
        worker.lanes[0].phase = "blocked"
        assert isinstance(await lookup.find("c1"), Found)


async def test_while_the_number_of_partitions_is_not_known_nothing_is_said() -> None:
    async with working([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_of(worker, None)
        assert await lookup.find("none") is None
        assert topic.asked == []
