"""Find a conversation: in the lane of this worker that owns it, else in the state topic.

Only an open lane is asked: while a lane restores, its state may be old, and a fenced lane may have lost its partition.
A conversation is expected in the partition that Kafka's own partitioner, which its producer used, gives for its key.
Where it is uncertain how the producer spells keys, there are several candidates.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from consumer.worker.lane_status import LaneStatus
from schemas.query import Origin


class Found(Struct, frozen=True):
    """The newest committed state of a conversation; its `state` is None if there is no such conversation."""

    partition: int
    origin: Origin
    state: bytes | None


class NotOpen(Struct, frozen=True):
    """The partition belongs to this worker, but its lane is not open (yet)."""

    partition: int


class Unfinished(Struct, frozen=True):
    """The time was up before the state topic was read to its beginning; the part that was read has no such key."""

    partition: int
    read_from: int
    """The first offset of the part that was read."""
    begin: int
    """The first offset of the partition."""


class StateTopic(Protocol):
    """Looks up keys in the state topic."""

    async def newest(self, partition: int, key: bytes) -> Found | Unfinished:
        """The newest committed state of a key, within a bounded time. Raises ExternalError."""


class Lookup:
    """Finds conversations.

    `find_candidates` gives the partitions that an id may be in, the likely one first; None while the topic is unknown.
    """

    def __init__(
        self, lanes: Mapping[int, LaneStatus], topic: StateTopic, find_candidates: Callable[[str], list[int] | None]
    ) -> None:
        self._lanes = lanes
        self._topic = topic
        self._find_candidates = find_candidates

    def held(self, conversation_id: str) -> Found | None:
        """A conversation in an open lane of this worker; None if there is none."""
        for partition, lane in self._lanes.items():
            state = lane.engine.states.get(conversation_id) if lane.is_open else None
            if state is not None:
                return Found(partition, "worker", state)
        return None

    async def find(self, conversation_id: str) -> Found | NotOpen | Unfinished | None:
        """A conversation in this worker or in the state topic; None while the number of partitions is not known."""
        held = self.held(conversation_id)
        if held is not None:
            return held
        answers: list[Found | NotOpen | Unfinished] = []
        for home in self._find_candidates(conversation_id) or ():
            answer = await self._look_into(home, conversation_id)
            if isinstance(answer, Found) and answer.state is not None:
                return answer
            answers.append(answer)
        uncertain = [answer for answer in answers if not isinstance(answer, Found)]
        return next(iter([*uncertain, *answers]), None)

    async def _look_into(self, home: int, conversation_id: str) -> Found | NotOpen | Unfinished:
        key = conversation_id.encode("utf-8", "surrogateescape")
        lane = self._lanes.get(home)
        if lane is None:
            return await self._topic.newest(home, key)
        return Found(home, "worker", None) if lane.is_open else NotOpen(home)
