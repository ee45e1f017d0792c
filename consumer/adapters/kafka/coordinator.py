"""Asking the broker that coordinates a group or a transactional id, as soon as there is one.

Facts of aiokafka 0.14 that shape it: its own calls need a member of the group; and they look at the errors of
partitions only, and take the error of the whole answer (another broker coordinates the group now, or has not loaded it
yet) for no commit at all.
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

from consumer.runtime.ports import Committed

_POLL_S = 0.1
_COMING = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""The coordinator moves, or the broker still makes its topic of offsets."""
_LEADER_EPOCH_SINCE = 5
"""The version of OffsetFetch since which it stands before the metadata of each partition."""
_COMING_CODES = {each.errno for each in _COMING}


async def find(client: AIOKafkaClient, kind: int, key: str) -> int:
    """The node that coordinates a group or a transactional id (`CoordinationType`). Raises KafkaError.

    This and what follows may wait for as long as the cluster is starting: the caller bounds the wait.
    """
    while True:
        try:
            return int(await client.coordinator_lookup(kind, key))
        except _COMING:
            await asyncio.sleep(_POLL_S)


class Group:
    """A consumer group, whose coordinator is looked up once for as long as it answers."""

    def __init__(self, client: AIOKafkaClient, group_id: str) -> None:
        self.group_id = group_id
        self._client = client
        self._node: int | None = None

    async def ask(self, request: Any) -> Any:
        """The coordinator's answer. Raises KafkaError, but not for an error code in the answer."""
        while True:
            if self._node is None:
                self._node = await find(self._client, CoordinationType.GROUP, self.group_id)
            node, self._node = self._node, None  # looked up again after any failure
            with contextlib.suppress(*_COMING):
                answer = await self._client.send(node, request)
                if not error_codes(answer) & _COMING_CODES:
                    self._node = node
                    return answer
            await asyncio.sleep(_POLL_S)


async def committed(
    client: AIOKafkaClient, group_id: str, topic: str, partitions: Iterable[int]
) -> dict[int, Committed | None]:
    """What a group has committed of partitions, None where it never did. Raises KafkaError."""
    partitions = list(partitions)
    answer = await Group(client, group_id).ask(OffsetFetchRequest(group_id, [(topic, partitions)]))
    return committed_of(answer, topic, partitions)


def committed_of(answer: Any, topic: str, partitions: Iterable[int]) -> dict[int, Committed | None]:
    """What an OffsetFetch answer says of partitions, None where nothing was ever committed. Raises KafkaError."""
    for code in error_codes(answer):
        raise for_code(code)
    told = {
        number: None if offset < 0 else Committed(offset, metadata or "")
        for name, some in answer.topics
        if name == topic
        for number, offset, metadata, _ in some
    }
    if not told.keys() >= set(partitions):
        raise UnknownTopicOrPartitionError
    return {number: told[number] for number in partitions}


def error_codes(answer: Any) -> set[int]:
    """Of an OffsetFetch or DescribeGroups answer as a whole, and of each partition or group."""
    of_groups = {each[0] for each in getattr(answer, "groups", ())}
    place = 4 if answer.API_VERSION >= _LEADER_EPOCH_SINCE else 3
    of_partitions = {some[place] for _, partitions, *_ in getattr(answer, "topics", ()) for some in partitions}
    return (of_groups | of_partitions | {getattr(answer, "error_code", 0)}) - {0}
