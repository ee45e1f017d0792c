"""How responses of coordinators are read, and that a coordinator that is not ready is waited for."""

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

from consumer.kafka import coordinator
from consumer.kafka.coordinator import find, find_committed, parse_committed
from consumer.worker.ports import Committed

NOT_READY = [GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError]
Failure = type[KafkaError]


def response_of(*partitions: tuple[int, int, str | None, int], error: int = 0, topic: str = "in") -> Struct:
    return OffsetFetchResponse_v3(0, [(topic, list(partitions))] if partitions else [], error)


def test_offsets_are_read_with_their_metadata() -> None:
    assert parse_committed(response_of((7, 42, "stream-ms=1", 0)), "in", [7]) == {7: Committed(42, "stream-ms=1")}
    assert parse_committed(response_of((6, 1, "", 0), (7, 42, None, 0)), "in", [7]) == {7: Committed(42, "")}
    assert parse_committed(OffsetFetchResponse_v1([("in", [(7, 42, "m", 0)])]), "in", [7]) == {7: Committed(42, "m")}


def test_partition_that_was_never_committed_has_no_offset() -> None:
    assert parse_committed(response_of((6, 1, "", 0), (7, -1, "", 0)), "in", [6, 7]) == {6: Committed(1, ""), 7: None}


@pytest.mark.parametrize("failure", [*NOT_READY, GroupAuthorizationFailedError])
def test_error_of_a_whole_response_is_not_no_commit(failure: Failure) -> None:
    with pytest.raises(failure):
        parse_committed(response_of(error=failure.errno), "in", [7])


@pytest.mark.parametrize("failure", [*NOT_READY, UnknownTopicOrPartitionError])
def test_error_of_a_partition_is_not_no_commit(failure: Failure) -> None:
    with pytest.raises(failure):
        parse_committed(response_of((6, 1, "", 0), (7, -1, "", failure.errno)), "in", [6, 7])


def test_response_without_the_partition_is_an_error() -> None:
    for other in (response_of((6, 1, "", 0)), response_of((7, 1, "", 0), topic="other"), response_of()):
        with pytest.raises(UnknownTopicOrPartitionError):
            parse_committed(other, "in", [7])


class Cluster:
    """A client of a cluster that gives these responses, or raises these errors, in their order."""

    def __init__(self, *responses: Any) -> None:
        self._responses = list(responses)

    async def coordinator_lookup(self, _kind: int, _key: str) -> int:
        return int(self._next())

    async def send(self, _node: int, _request: Any) -> Any:
        return self._next()

    def _next(self) -> Any:
        response = self._responses.pop(0)
        if isinstance(response, type):
            raise response
        return response


@pytest.fixture(autouse=True)
def _poll_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_POLL_S", 0.001)


@pytest.mark.parametrize("failure", NOT_READY)
async def test_coordinator_that_is_not_ready_is_waited_for(failure: Failure) -> None:
    """Whether the lookup fails, the request, the whole response or a partition in it."""
    failures = [failure, 1, failure, 1, response_of(error=failure.errno), 1, response_of((7, -1, "", failure.errno))]
    cluster = Cluster(*failures, 1, response_of((7, 42, "m", 0)))
    async with asyncio.timeout(60):
        assert await find_committed(cluster, "g", "in", [7]) == {7: Committed(42, "m")}


async def test_any_other_failure_is_raised() -> None:
    for responses in ([GroupAuthorizationFailedError], [1, GroupAuthorizationFailedError]):
        with pytest.raises(GroupAuthorizationFailedError):
            await find_committed(Cluster(*responses), "g", "in", [7])
    with pytest.raises(GroupAuthorizationFailedError):
        await find_committed(Cluster(1, response_of(error=GroupAuthorizationFailedError.errno)), "g", "in", [7])


async def test_coordinator_of_transactions_is_waited_for_too() -> None:
    assert await find(Cluster(*NOT_READY, 3), CoordinationType.TRANSACTION, "t") == 3
