"""Consumer groups as tests set them, and workers that answer from lists."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from consumer.query.fleet import (
    LIVE_PATH,
    RECENT_PATH,
    REQUEST,
    Fleet,
    Group,
    LiveRequest,
    Member,
    NoAnswerError,
    RecentRequest,
)
from consumer.query.live_search import LiveFilter, Position
from consumer.query.parts import LETTERS_MAX, OPERATIONS_MAX, LivePart, Operation, OverviewPart, RecentPart, position_of
from consumer.query.recent_activity import RecentLetter
from consumer.query.trends import Sample
from schemas.query import DeadLetterCount, LaneView, LiveCommunication, LiveCount
from schemas.state import Source
from schemas.transition import Context, Transition
from tests.strategies import at

OWN = "worker-0"


class SetGroup:
    """Implements `GroupView`: one member that owns all partitions, until a test changes it."""

    def __init__(self, partitions: int = 1) -> None:
        self.members: list[Member] = []
        self.problem = ""
        self.own_generation = 1
        self.total: int | None = partitions

    async def describe(self) -> Group:
        return Group(OWN, self.members, self.problem)

    def generation(self) -> int:
        return self.own_generation

    def partitions(self) -> int | None:
        return self.total


class ListWorker:
    """Implements `OwnParts`: answers from its partitions' communications, as many at a time as a test allows."""

    def __init__(self, live: Mapping[int, Sequence[LiveCommunication]], generation: int = 1) -> None:
        self.generation = generation
        self.live = live
        self.page_max = 500
        self.delay_s = 0.0
        self.failure: NoAnswerError | None = None
        self.body: bytes | None = None
        """What it answers instead."""
        self.asked = 0

    async def live_part(self, _: LiveFilter, after: Position | None, limit: int) -> LivePart:
        items = sorted((item for items in self.live.values() for item in items), key=position_of)
        rest = [item for item in items if after is None or position_of(item) > after]
        page = rest[: min(limit, self.page_max)]
        end = position_of(page[-1]) if len(page) < len(rest) else None
        return LivePart(self.generation, sorted(self.live), page, end, limit)

    async def overview_part(self) -> OverviewPart:
        items = sorted((item for items in self.live.values() for item in items), key=position_of)
        states = {(item.media, item.state) for item in items}
        operations = [make_operation(partition, number) for partition in self.live for number in range(OPERATIONS_MAX)]
        letters = [_letter(partition, number) for partition in self.live for number in range(LETTERS_MAX)]
        return OverviewPart(
            generation=self.generation,
            partitions=sorted(self.live),
            live=[
                LiveCount(media, state, sum((item.media, item.state) == (media, state) for item in items))
                for media, state in states
            ],
            lanes=[_lane(partition) for partition in sorted(self.live)],
            operations=sorted(operations, key=lambda operation: -operation.committed_ms)[:OPERATIONS_MAX],
            dead_letters=[DeadLetterCount("late", 1 + partition) for partition in list(self.live)[:1]],
            letters=sorted(letters, key=lambda letter: -letter.committed_ms)[:LETTERS_MAX],
            oldest=items[:10],
            trend=[Sample(slot, lag_records=1, delay_ms=slot, dead_letters=2, corrections=3) for slot in (1, 2)],
        )

    async def recent_part(self, conversation_id: str) -> RecentPart:
        return RecentPart([make_operation(0, 1)], [_letter(0, 1)] if conversation_id == "c1" else [])


class ListWorkers:
    """Implements `Workers`, by address."""

    def __init__(self, workers: Mapping[str, ListWorker]) -> None:
        self._workers = workers
        self._running = 0
        self.running_max = 0

    async def ask(self, address: str, path: str, parameters: Mapping[str, str]) -> bytes:
        worker = self._workers[address]
        worker.asked += 1
        self._running += 1
        self.running_max = max(self.running_max, self._running)
        try:
            await asyncio.sleep(worker.delay_s)
        finally:
            self._running -= 1
        if worker.failure is not None:
            raise worker.failure
        if worker.body is not None:
            return worker.body
        if path == LIVE_PATH:
            asked = msgspec.json.decode(parameters[REQUEST], type=LiveRequest)
            return msgspec.json.encode(await worker.live_part(asked.live_filter, asked.after, asked.limit))
        if path == RECENT_PATH:
            recent = msgspec.json.decode(parameters[REQUEST], type=RecentRequest)
            return msgspec.json.encode(await worker.recent_part(recent.conversation_id))
        return msgspec.json.encode(await worker.overview_part())


def fleet_of(*workers: ListWorker) -> tuple[Fleet, SetGroup, ListWorkers]:
    """A fleet as its first worker sees it. The group knows of each what it owns."""
    group = SetGroup(max((partition + 1 for worker in workers for partition in worker.live), default=0))
    group.own_generation = workers[0].generation
    addresses = ["", *(f"10.0.0.{number}:8081" for number in range(1, len(workers)))]
    group.members = [
        Member(f"worker-{number}", addresses[number], sorted(worker.live)) for number, worker in enumerate(workers)
    ]
    others = ListWorkers(dict(zip(addresses[1:], workers[1:], strict=True)))
    return Fleet(group, others, workers[0], _turn), group, others


def live_communication(number: int, second: int, state: str = "alerting") -> LiveCommunication:
    return LiveCommunication(
        conversation_id=f"c{number}", participant_id="p1", media="call", communication_id=f"l{number}",
        purpose=None, user_id=None, queue_id=None,
        state=state, state_time=at(second), time_class="state", since=at(second),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    yield


def _lane(partition: int) -> LaneView:
    return LaneView(
        partition=partition, worker=None, phase="running", conversations=1,
        lag_records=0, restore_records=0, problem=None,
    )  # fmt: skip


def make_operation(partition: int, number: int) -> Operation:
    transition = Transition(
        1, f"{partition}-{number}", "assert", "c", "p", None, "call", None, "alerting", at(number), "state", None,
        Context(), Source("in", partition, number),
    )  # fmt: skip
    return Operation(1_000 * number + partition, transition)


def _letter(partition: int, number: int) -> RecentLetter:
    return RecentLetter(1_000 * number + partition, f"c{number}", "late", "", str(partition), str(number))
