"""Where a conversation is looked up, and the answer if it is not found."""

from unittest.mock import AsyncMock

import pytest
from msgspec.structs import replace

from consumer.query.lookup import Found, Lookup, NotOpen, Unfinished
from consumer.worker.worker import Worker
from tests.worker.scenes import call
from tests.worker.serving import run_worker, set_partition

ELSEWHERE = 7


class FakeTopic:
    """A state topic with the same answer for every key."""

    def __init__(self, answer: Found | Unfinished) -> None:
        self.lookups: list[tuple[int, bytes]] = []
        self._answer = answer

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        self.lookups.append((partition, key))
        return self._answer


FOUND = Found(ELSEWHERE, "state_topic", b"state")


def lookup_in(worker: Worker, home: int | None, answer: Found | Unfinished = FOUND) -> tuple[Lookup, FakeTopic]:
    topic = FakeTopic(answer)
    return Lookup(worker.lanes, topic, lambda _: None if home is None else [home]), topic


async def test_own_conversation_is_found_in_any_partition() -> None:
    async with run_worker([call(0, "alerting", 1), set_partition(call(0, "connected", 2, "c2"), 1)], (0, 1)) as worker:
        lookup, topic = lookup_in(worker, ELSEWHERE)
        for conversation_id, partition in (("c1", 0), ("c2", 1)):
            state = worker.lanes[partition].engine.states.get(conversation_id)
            assert state is not None
            assert await lookup.find(conversation_id) == Found(partition, "worker", state)
        assert topic.lookups == []


async def test_own_partition_is_not_looked_up_in_the_topic() -> None:
    async with run_worker([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_in(worker, 0)
        assert await lookup.find("none") == Found(0, "worker", None)
        assert topic.lookups == []


@pytest.mark.parametrize("answer", [FOUND, Found(ELSEWHERE, "state_topic", None), Unfinished(ELSEWHERE, 50, 0)])
async def test_other_partition_is_looked_up_in_the_state_topic(answer: Found | Unfinished) -> None:
    async with run_worker([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_in(worker, ELSEWHERE, answer)
        assert await lookup.find("\udcff-é") == answer
        assert topic.lookups == [(ELSEWHERE, b"\xff-\xc3\xa9")]


NOTHING = Found(ELSEWHERE, "state_topic", None)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([FOUND], FOUND),
        ([NOTHING, FOUND], FOUND),
        ([NOTHING, replace(NOTHING, partition=8)], NOTHING),
        ([NOTHING, Unfinished(8, 50, 0)], Unfinished(8, 50, 0)),
        ([Unfinished(7, 50, 0), FOUND], FOUND),
        ([Unfinished(7, 50, 0), NOTHING], Unfinished(7, 50, 0)),
    ],
)
async def test_candidates_are_looked_up_in_turn(
    answers: list[Found | Unfinished], expected: Found | Unfinished
) -> None:
    """What could not be read may have it: that is said before what has it not."""
    topic = AsyncMock()
    topic.newest.side_effect = answers
    assert await Lookup({}, topic, lambda _: [7, 8]).find("c1") == expected
    assert [call.args for call in topic.newest.await_args_list] == [(7, b"c1"), (8, b"c1")][: len(answers)]


@pytest.mark.parametrize("phase", ["opening", "fenced", "failing", "closed"])
async def test_a_lane_that_is_not_open_is_not_asked(phase: str) -> None:
    async with run_worker([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_in(worker, 0)
        worker.lanes[0].phase = phase  # type: ignore[assignment]
        assert await lookup.find("c1") == NotOpen(0)
        assert topic.lookups == []


async def test_a_lane_with_an_open_breaker_still_answers() -> None:
    async with run_worker([call(0, "alerting", 1)]) as worker:
        lookup, _ = lookup_in(worker, 0)
        worker.lanes[0].phase = "blocked"
        assert isinstance(await lookup.find("c1"), Found)


async def test_no_answer_while_the_partition_count_is_unknown() -> None:
    async with run_worker([call(0, "alerting", 1)]) as worker:
        lookup, topic = lookup_in(worker, None)
        assert await lookup.find("none") is None
        assert topic.lookups == []
