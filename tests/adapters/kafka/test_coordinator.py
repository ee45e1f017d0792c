"""What is read out of the answers of coordinators, and that one that is on its way is waited for."""

import asyncio
from typing import Any

import pytest
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3
from aiokafka.protocol.struct import Struct

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.coordinator import committed, committed_of, find
from consumer.runtime.ports import Committed

COMING = [GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError]
Failure = type[KafkaError]


def answer(*partitions: tuple[int, int, str | None, int], error: int = 0, topic: str = "in") -> Struct:
    return OffsetFetchResponse_v3(0, [(topic, list(partitions))] if partitions else [], error)


def test_offsets_with_their_metadata() -> None:
    assert committed_of(answer((7, 42, "stream-ms=1", 0)), "in", [7]) == {7: Committed(42, "stream-ms=1")}
    assert committed_of(answer((6, 1, "", 0), (7, 42, None, 0)), "in", [7]) == {7: Committed(42, "")}
    assert committed_of(OffsetFetchResponse_v1([("in", [(7, 42, "m", 0)])]), "in", [7]) == {7: Committed(42, "m")}


def test_a_group_that_never_committed() -> None:
    assert committed_of(answer((6, 1, "", 0), (7, -1, "", 0)), "in", [6, 7]) == {6: Committed(1, ""), 7: None}


@pytest.mark.parametrize("failure", [*COMING, GroupAuthorizationFailedError])
def test_an_answer_that_failed_as_a_whole_is_not_taken_for_no_commit(failure: Failure) -> None:
    with pytest.raises(failure):
        committed_of(answer(error=failure.errno), "in", [7])


@pytest.mark.parametrize("failure", [*COMING, UnknownTopicOrPartitionError])
def test_an_error_of_a_partition_is_not_taken_for_no_commit(failure: Failure) -> None:
    with pytest.raises(failure):
        committed_of(answer((6, 1, "", 0), (7, -1, "", failure.errno)), "in", [6, 7])


def test_an_answer_about_another_partition_says_nothing() -> None:
    for other in (answer((6, 1, "", 0)), answer((7, 1, "", 0), topic="other"), answer()):
        with pytest.raises(UnknownTopicOrPartitionError):
            committed_of(other, "in", [7])


class Cluster:
    """A client to whom the cluster answers one thing after the other."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def coordinator_lookup(self, _kind: int, _key: str) -> int:
        return int(self._next())

    async def send(self, _node: int, _request: Any) -> Any:
        return self._next()

    def _next(self) -> Any:
        following = self._answers.pop(0)
        if isinstance(following, type):
            raise following
        return following


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_POLL_S", 0.001)


@pytest.mark.parametrize("failure", COMING)
async def test_a_coordinator_that_is_coming_is_waited_for_however_that_is_told(failure: Failure) -> None:
    told = [failure, 1, failure, 1, answer(error=failure.errno), 1, answer((7, -1, "", failure.errno))]
    cluster = Cluster(*told, 1, answer((7, 42, "m", 0)))
    async with asyncio.timeout(60):
        assert await committed(cluster, "g", "in", [7]) == {7: Committed(42, "m")}


async def test_any_other_failure_is_told() -> None:
    for answers in ([GroupAuthorizationFailedError], [1, GroupAuthorizationFailedError]):
        with pytest.raises(GroupAuthorizationFailedError):
            await committed(Cluster(*answers), "g", "in", [7])
    with pytest.raises(GroupAuthorizationFailedError):
        await committed(Cluster(1, answer(error=GroupAuthorizationFailedError.errno)), "g", "in", [7])


async def test_the_coordinator_of_transactions_is_waited_for_as_well() -> None:
    assert await find(Cluster(*COMING, 3), CoordinationType.TRANSACTION, "t") == 3
