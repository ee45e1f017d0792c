"""Answers for the whole consumer group: what each worker answers for its own partitions, added up.

1. Every partition counts once, by its owner of the newest generation of the group that any part shows. A part of an
   older generation counts nothing: its worker may not know yet that it has lost its partitions.
2. An answer is complete only if it counts all partitions of the input, the group is known as it is now, and it is
   stable. Else it says what is missing and why.
3. The other workers are asked for parts, which a worker makes from its own lanes alone: no request is ever forwarded.
4. At most `_ANSWERS_MAX` pages are made at a time. For each at most `_ASKED_MAX` workers are asked at a time, within
   the time of the whole answer. A worker that was silent for so long is not asked again for `_SILENT_S`, so that it
   does not hold up every answer.
5. Only the owner of a conversation is asked for what was published of it lately.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from consumer.query.live_search import LiveFilter, Position
from consumer.query.parts import NO_OVERVIEW, LivePart, OverviewPart, Part, RecentPart
from consumer.query.recent_activity import RecentLetter
from consumer.query.trends import Sample
from schemas.query import LiveCommunication, LiveCommunications, MissingPartitions, Overview

_ANSWERS_MAX: Final = 4
_ASKED_MAX: Final = 8
_SILENT_S: Final = 5.0
_LIVE_S: Final = 6.0
"""For a search: those that another worker has waiting come first, and each takes seconds at most."""
_OVERVIEW_S: Final = 3.0
_RECENT_S: Final = 1.0
"""What a page can do without: so short that it keeps no one from a lookup that took long."""
_FRESH_S: Final = 0.5
"""How long all who ask get the same overview."""
_Part = TypeVar("_Part", bound=Part)


class Member(Struct, frozen=True):
    """A member of the group. `address` is that of its query port, empty if it advertises none."""

    member_id: str
    address: str
    partitions: Sequence[int]


class Group(Struct, frozen=True):
    """The group as it was described last while it was stable."""

    own_id: str
    members: Sequence[Member]
    problem: str = ""
    """Why it may not be so any more; empty if it is."""

    def has_lost(self, member_id: str) -> bool:
        """Whether it certainly has no such member."""
        return bool(self.members) and not self.problem and all(member.member_id != member_id for member in self.members)


class GroupView(Protocol):
    """What a worker knows of its group."""

    async def describe(self) -> Group:
        """The members. Never raises, and returns within a bounded time."""

    def generation(self) -> int:
        """The generation that this worker is a member of; below 0 if it is in none."""

    def partitions(self) -> int | None:
        """How many partitions the input has; None if it is not known yet."""


class NoAnswerError(Exception):
    """Another worker gave no answer that can be used; the message says why."""


class Workers(Protocol):
    """The other workers."""

    async def ask(self, address: str, path: str, parameters: Mapping[str, str]) -> bytes:
        """The body of an answer of a bounded size. Raises NoAnswerError; the caller bounds the time."""


class OwnParts(Protocol):
    """The parts of this worker."""

    async def live_part(self, live_filter: LiveFilter, after: Position | None, limit: int) -> LivePart:
        """Up to `limit` live communications after a position."""

    async def overview_part(self) -> OverviewPart:
        """The overview of this worker."""

    async def recent_part(self, conversation_id: str) -> RecentPart:
        """What this worker published of a conversation lately."""


class LiveRequest(Struct, frozen=True):
    """What another worker is asked for a page."""

    live_filter: LiveFilter
    after: Position | None
    limit: int


class RecentRequest(Struct, frozen=True):
    """What another worker is asked for what it published of a conversation."""

    conversation_id: str


class FleetOverview(Struct, frozen=True):
    """The overview, with what only the live page shows."""

    overview: Overview
    oldest: list[LiveCommunication]
    letters: list[RecentLetter]
    trend: list[Sample]
    workers: int
    """How many answered."""


LIVE_PATH: Final = "communications"
OVERVIEW_PATH: Final = "overview"
RECENT_PATH: Final = "recent"
REQUEST: Final = "request"
"""The parameter that holds a `LiveRequest` or a `RecentRequest` as JSON."""
_RECENT: Final = msgspec.json.Decoder(RecentPart)


class Fleet:
    """Answers for all workers of the group. `run` gives the turns in which parts are added up."""

    def __init__(
        self, group: GroupView, workers: Workers, own: OwnParts, run: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._group = group
        self._workers = workers
        self._own = own
        self._run = run
        self._silences: dict[str, tuple[float, str]] = {}
        """By address: until when, by the monotonic clock, a worker that was silent is not asked, and what is said."""
        self._turns = asyncio.Semaphore(_ANSWERS_MAX)
        self._looking = asyncio.Lock()
        self._overview: tuple[float, FleetOverview] | None = None
        """When it was complete, by the monotonic clock."""

    async def live(
        self, live_filter: LiveFilter, after: Position | None, limit: int
    ) -> tuple[LiveCommunications, Position | None]:
        """A page of live communications, and the position to continue from; None at the end.

        The caller encodes that position as the cursor of the page, which is left empty here.
        """
        request = msgspec.json.encode(LiveRequest(live_filter, after, limit)).decode()
        asking = _Asking(LIVE_PATH, {REQUEST: request}, msgspec.json.Decoder(LivePart), _LIVE_S)
        async with self._turns:
            sum_, missing = await self._add_up(asking, lambda: self._own.live_part(live_filter, after, limit))
        part = sum_.part or LivePart(-1, [], [], after, limit)
        return LiveCommunications(part.partitions, not missing, missing, part.items, None), part.end

    async def overview(self) -> FleetOverview:
        """The overview of all workers, half a second old at most."""
        async with self._looking:
            if self._overview is None or time.monotonic() - self._overview[0] > _FRESH_S:
                overview = await self._look()
                self._overview = time.monotonic(), overview
            return self._overview[1]

    async def recent(self, conversation_id: str, partition: int) -> RecentPart | None:
        """What the owner of a partition published of a conversation lately; None if it gives no answer in time."""
        try:
            async with asyncio.timeout(_RECENT_S), self._turns:
                group = await self._group.describe()
                owner = next((member for member in group.members if partition in member.partitions), None)
                if owner is None or owner.member_id == group.own_id:
                    return await self._own.recent_part(conversation_id)
                request = msgspec.json.encode(RecentRequest(conversation_id)).decode()
                return _RECENT.decode(await self._ask(owner.address, RECENT_PATH, {REQUEST: request}))
        except (TimeoutError, NoAnswerError, msgspec.MsgspecError, UnicodeError, RecursionError):
            return None

    async def _look(self) -> FleetOverview:
        asking = _Asking(OVERVIEW_PATH, {}, msgspec.json.Decoder(OverviewPart), _OVERVIEW_S)
        sum_, missing = await self._add_up(asking, self._own.overview_part)
        part = sum_.part or NO_OVERVIEW
        overview = Overview(
            partitions=part.partitions,
            complete=not missing,
            missing=missing,
            live=part.live,
            lanes=part.lanes,
            transitions=[operation.transition for operation in part.operations],
            dead_letters=part.dead_letters,
        )
        return FleetOverview(overview, part.oldest, part.letters, part.trend, sum_.workers)

    async def _add_up(
        self, asking: "_Asking[_Part]", own: Callable[[], Awaitable[_Part]]
    ) -> "tuple[_Sum[_Part], list[MissingPartitions]]":
        """The sum of the parts of all workers, and what it does not count."""
        sum_, failures = _Sum[_Part](), dict[str, str]()
        group = await self._group.describe()
        turns = asyncio.Semaphore(_ASKED_MAX)
        until_s = asyncio.get_running_loop().time() + asking.within_s

        async def count_own() -> None:
            sum_.add(group.own_id, await own())

        async def count(member: Member) -> None:
            try:
                async with asyncio.timeout_at(until_s), turns:
                    body = await self._ask(member.address, asking.path, asking.parameters)
                async with self._run():
                    sum_.add(member.member_id, asking.decoder.decode(body))
            except TimeoutError:
                failures[member.member_id] = asking.silence
                self._note_silence(member.address, asking.silence, group)
            except NoAnswerError as error:
                failures[member.member_id] = str(error)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                failures[member.member_id] = "its answer is that of another version"

        async with asyncio.TaskGroup() as tasks:
            if group.has_lost(group.own_id):
                failures[group.own_id] = "this worker is not a member of the group any more"
            else:
                tasks.create_task(count_own())
            for member in group.members:
                if member.address and member.partitions and member.member_id != group.own_id:
                    tasks.create_task(count(member))
        counted = set[int]() if sum_.part is None else set(sum_.part.partitions)
        return sum_, _find_missing(self._group.partitions(), counted, group, failures, sum_.late)

    def _note_silence(self, address: str, silence: str, group: Group) -> None:
        """Note that a worker was silent, and forget addresses that no member of the group has."""
        addresses = {member.address for member in group.members}
        self._silences = {known: noted for known, noted in self._silences.items() if known in addresses}
        self._silences[address] = time.monotonic() + _SILENT_S, silence

    async def _ask(self, address: str, path: str, parameters: Mapping[str, str]) -> bytes:
        """The answer of another worker. Raises NoAnswerError, and TimeoutError at the caller's bound."""
        if not address:
            raise NoAnswerError("its worker advertises no address: CC_QUERY_ADVERTISED")
        until_s, silence = self._silences.pop(address, (0.0, ""))
        if time.monotonic() < until_s:
            self._silences[address] = until_s, silence
            raise NoAnswerError(silence)
        return await self._workers.ask(address, path, parameters)


class _Asking(Struct, Generic[_Part]):
    """What is asked of all workers."""

    path: str
    parameters: Mapping[str, str]
    decoder: msgspec.json.Decoder[_Part]
    within_s: float

    @property
    def silence(self) -> str:
        """What is said of a worker that does not answer in time."""
        return f"no answer within {self.within_s:g} s"


class _Sum(Generic[_Part]):
    """The sum of the parts of the newest generation so far."""

    def __init__(self) -> None:
        self.part: _Part | None = None
        self.workers = 0
        """How many parts it has."""
        self._generations: dict[str, int] = {}

    @property
    def late(self) -> set[str]:
        """The members whose parts are of an older generation."""
        newest = -1 if self.part is None else self.part.generation
        return {member_id for member_id, generation in self._generations.items() if generation < max(newest, 0)}

    def add(self, member_id: str, part: _Part) -> None:
        """Count a part, unless one of a newer generation has been counted."""
        self._generations[member_id] = part.generation
        if part.generation < 0:
            return
        if self.part is None or part.generation > self.part.generation:
            self.part, self.workers = part, 1
        elif part.generation == self.part.generation and not {*part.partitions} & {*self.part.partitions}:
            self.part, self.workers = self.part.add(part), self.workers + 1


def _find_missing(
    partitions: int | None, counted: set[int], group: Group, failures: Mapping[str, str], late: set[str]
) -> list[MissingPartitions]:
    """The partitions that are not counted, by worker and reason. Empty if the answer is complete."""
    owners = {partition: member for member in group.members for partition in member.partitions}
    missing = defaultdict[tuple[str, str | None], list[int]](list)
    for partition in sorted({*range(partitions or 0), *owners} - counted):
        owner = owners.get(partition)
        missing[_explain(owner, group, failures, late), owner.address or None if owner else None].append(partition)
    found = [MissingPartitions(numbers, reason, worker) for (reason, worker), numbers in missing.items()]
    if partitions is None:
        found.append(MissingPartitions([], "it is not known yet how many partitions there are"))
    if group.problem and not any(entry.reason == group.problem for entry in found):
        found.append(MissingPartitions([], group.problem))
    return found


def _explain(owner: Member | None, group: Group, failures: Mapping[str, str], late: set[str]) -> str:
    """Why a partition is not counted."""
    if owner is None:
        return group.problem or ("no worker owns it" if group.members else "this broker does not tell who owns it")
    if owner.member_id in failures:
        return failures[owner.member_id]
    if group.problem:
        return group.problem
    if owner.member_id in late:
        return "its worker does not know the newest generation of the group yet"
    if not owner.address and owner.member_id != group.own_id:
        return "its worker advertises no address: CC_QUERY_ADVERTISED"
    return "it is not open: it is being restored, or it moves"
