"""Requests to the broker that coordinates a consumer group or a transactional id, without being a member.

Facts of aiokafka 0.14 that shape this module:

1. Its own calls need a member of the group.
2. They check the errors of single partitions only. They take an error of the whole response (another broker
   coordinates the group now, or has not loaded it yet) for "nothing committed".
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

from consumer.worker.ports import Committed

_POLL_S = 0.1
_NOT_READY = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""The coordinator moves or loads, or the broker is still creating the topic of offsets."""
_NOT_READY_CODES = {error.errno for error in _NOT_READY}
_LEADER_EPOCH_SINCE = 5
"""The version of OffsetFetch since which a leader epoch precedes the metadata of each partition."""


async def find(client: AIOKafkaClient, kind: int, key: str) -> int:
    """The node that coordinates a group or a transactional id; `kind` is a `CoordinationType`. Raises KafkaError.

    This function and those below wait while the cluster is starting, without a limit: the caller bounds them.
    """
    while True:
        try:
            return int(await client.coordinator_lookup(kind, key))
        except _NOT_READY:
            await asyncio.sleep(_POLL_S)


class Group:
    """A consumer group. Its coordinator is looked up again only after a failure."""

    def __init__(self, client: AIOKafkaClient, group_id: str) -> None:
        self.group_id = group_id
        self._client = client
        self._node: int | None = None

    async def ask(self, request: Any) -> Any:
        """The coordinator's response. Raises KafkaError; error codes in the response are left to the caller."""
        while True:
            if self._node is None:
                self._node = await find(self._client, CoordinationType.GROUP, self.group_id)
            node, self._node = self._node, None  # None stays if the request fails
            with contextlib.suppress(*_NOT_READY):
                response = await self._client.send(node, request)
                if not error_codes(response) & _NOT_READY_CODES:
                    self._node = node
                    return response
            await asyncio.sleep(_POLL_S)


async def find_committed(
    client: AIOKafkaClient, group_id: str, topic: str, partitions: Iterable[int]
) -> dict[int, Committed | None]:
    """What a group has committed for each partition, None where it never did. Raises KafkaError."""
    partitions = list(partitions)
    response = await Group(client, group_id).ask(OffsetFetchRequest(group_id, [(topic, partitions)]))
    return parse_committed(response, topic, partitions)


def parse_committed(response: Any, topic: str, partitions: Iterable[int]) -> dict[int, Committed | None]:
    """What an OffsetFetch response holds for each partition, None where nothing was committed. Raises KafkaError."""
    for code in error_codes(response):
        raise for_code(code)
    committed = {
        number: None if offset < 0 else Committed(offset, metadata or "")
        for name, fields in response.topics
        if name == topic
        for number, offset, metadata, _ in fields
    }
    if not committed.keys() >= set(partitions):
        raise UnknownTopicOrPartitionError
    return {number: committed[number] for number in partitions}


def error_codes(response: Any) -> set[int]:
    """All error codes of a response: its own, and those of its groups or partitions.

    Reads OffsetFetch, DescribeGroups, and any response with nothing but an error code.
    """
    of_groups = {group[0] for group in getattr(response, "groups", ())}
    index = 4 if response.API_VERSION >= _LEADER_EPOCH_SINCE else 3
    of_partitions = {fields[index] for _, partitions, *_ in getattr(response, "topics", ()) for fields in partitions}
    return (of_groups | of_partitions | {getattr(response, "error_code", 0)}) - {0}
