"""Finding a conversation: in the lane of this worker that owns it, else in the state topic.

Only a lane that is open knows its conversations: while one restores, what it has may be old, and a fenced one may
have lost its partition. Kafka's own partitioner tells which partition has a conversation, as it did its producer.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from consumer.runtime.lane import Lane
from schemas.query import Origin


class Found(Struct, frozen=True):
    """The newest committed state, None if there is no such conversation."""

    partition: int
    origin: Origin
    state: bytes | None


class NotOpen(Struct, frozen=True):
    """The partition is one of this worker, but its lane is not open (yet)."""

    partition: int


class Unfinished(Struct, frozen=True):
    """The state topic could not be read to its beginning in the time there is: nothing was found in the newest part."""

    partition: int
    read_from: int
    """The offset from which on there is nothing."""
    begin: int
    """The first offset of the partition."""


class StateTopic(Protocol):
    """The state topic as seen by one who looks for one key."""

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        """The newest committed state of a key, within a bounded time. Raises WorldError."""


class Lookup:
    """Finds conversations. `partition_of` gives the partition of a key, None while the topic is not known."""

    def __init__(
        self, lanes: Mapping[int, Lane], topic: StateTopic, partition_of: Callable[[bytes], int | None]
    ) -> None:
        self._lanes = lanes
        self._topic = topic
        self._partition_of = partition_of

    def held(self, conversation_id: str) -> Found | None:
        """A conversation of this worker; None if it has none."""
        for partition, lane in self._lanes.items():
            state = lane.store.get(conversation_id) if lane.is_open else None
            if state is not None:
                return Found(partition, "worker", state)
        return None

    async def find(self, conversation_id: str) -> Found | NotOpen | Unfinished | None:
        """Where a conversation is and its state; None while it is not known how many partitions there are."""
        held = self.held(conversation_id)
        if held is not None:
            return held
        key = conversation_id.encode("utf-8", "surrogateescape")
        home = self._partition_of(key)
        if home is None:
            return None
        owned = self._lanes.get(home)
        if owned is None:
            return await self._topic.newest(home, key)
        return Found(home, "worker", None) if owned.is_open else NotOpen(home)
