"""The answers of the query port, for the API and for the live page, or the reason why there is none.

All answers together take at most `_LOOP_SHARE` of the loop's time. Every answer takes a bounded time.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from consumer.query.conclusion import conclude_from_state
from consumer.query.live_search import LiveFilter, LiveSearch, Position
from consumer.query.lookup import Found, Lookup, NotOpen, Unfinished
from consumer.query.overview import OverviewReader
from consumer.query.parts import NO_OVERVIEW, OLDEST_MAX, LivePart, OverviewPart, RecentPart
from consumer.query.timeline_view import communications
from consumer.web.loop_budget import LoopBudget
from consumer.worker.ports import ExternalError
from schemas.query import ConversationFound, Problem, Timeline
from schemas.state import ConversationState

LOOK_S: Final = 5.0
"""How long a lookup may search the state topic for a conversation of another worker."""

_FIND_S: Final = 8.0
"""How long a lookup may take, with the wait for other searches."""
_LOOP_SHARE: Final = 0.25
_OVERVIEW_SHARE: Final = 0.05
"""Share of the loop's time that overviews may take, however many ask."""
_STATE: Final = msgspec.json.Decoder(ConversationState)


class Refused(Exception):
    """A request whose answer is a problem."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = headers or {}


class Story(Struct, frozen=True):
    """What happened in a conversation, and what is concluded from it: sentences, none for a past time."""

    timeline: Timeline
    conclusion: list[str]


class Answers:
    """Answers of this worker, from the committed state; raise Refused. `cycles_max` is the rules' `park_cycles_max`.

    `generation` gives that of the group in which the lanes are this worker's.
    """

    def __init__(
        self,
        lookup: Lookup,
        search: LiveSearch,
        overviews: OverviewReader,
        cycles_max: int,
        generation: Callable[[], int],
    ) -> None:
        self._lookup = lookup
        self._search = search
        self._overviews = overviews
        self._cycles_max = cycles_max
        self._generation = generation
        self._looking = asyncio.Lock()
        self._overview: OverviewPart = NO_OVERVIEW
        self._fresh_until_s = float("-inf")
        self.budget = LoopBudget(_LOOP_SHARE)

    async def conversation(self, conversation_id: str) -> ConversationFound:
        """The newest state of a conversation, whichever worker owns it."""
        found, state = await self._find(conversation_id)
        async with self.budget.run():
            return ConversationFound(found.partition, found.origin, _STATE.decode(state))

    async def timeline(self, conversation_id: str, as_of: str | None) -> Timeline:
        """What had happened in a conversation by `as_of`, a time as published, or by now."""
        found, state = await self._find(conversation_id)
        return await self._view(found, state, as_of)

    async def live_part(self, live_filter: LiveFilter, after: Position | None, limit: int) -> LivePart:
        """See `query.fleet.OwnParts`."""
        async with self.budget.acquire() as spent:
            before_s = self._search.spent_s
            generation = self._generation()  # before the search, which may outlast it
            try:
                page, end = await self._search.page(live_filter, after, limit)
            finally:
                spent.seconds += self._search.spent_s - before_s
        return LivePart(generation, page.partitions, page.items, end, limit)

    async def overview_part(self) -> OverviewPart:
        """See `query.fleet.OwnParts`. It may be some time old, in proportion to what it costs."""
        async with self._looking:
            if time.monotonic() < self._fresh_until_s and self._overview.generation == self._generation():
                return self._overview
            searched_s = self._search.spent_s
            oldest = await self.live_part(LiveFilter(), None, OLDEST_MAX)
            cost_s = self._search.spent_s - searched_s
            async with self.budget.acquire() as spent:
                with spent:
                    self._overview = self._overviews.read(self._generation(), oldest.items)
            self._fresh_until_s = time.monotonic() + (cost_s + spent.seconds) / _OVERVIEW_SHARE
            return self._overview

    async def recent_part(self, conversation_id: str) -> RecentPart:
        """See `query.fleet.OwnParts`."""
        async with self.budget.run():
            return self._overviews.read_recent(conversation_id)

    def held(self, conversation_id: str) -> Found | None:
        """The newest state of a conversation of this worker, None if the worker has none."""
        return self._lookup.held(conversation_id)

    async def story(self, conversation_id: str, as_of: str | None, now_ms: int) -> Story:
        """What had happened in a conversation by `as_of` or by now, and what is concluded from its state now."""
        found, _ = await self._find(conversation_id)
        return await self.story_of(found, as_of, now_ms)

    async def story_of(self, found: Found, as_of: str | None, now_ms: int) -> Story:
        """The story of a conversation that was found."""
        assert found.state is not None
        timeline = await self._view(found, found.state, as_of)
        if as_of is not None:
            return Story(timeline, [])
        async with self.budget.run():
            state = _STATE.decode(found.state)
            return Story(timeline, list(conclude_from_state(state, timeline.communications, now_ms, {})))

    async def _view(self, found: Found, state: bytes, as_of: str | None) -> Timeline:
        async with self.budget.run():
            conversation = _STATE.decode(state)
            views = communications(conversation, self._cycles_max, as_of)
            live = sum(view.live for view in views)
            return Timeline(found.partition, found.origin, conversation.conversation_id, as_of, live, views)

    async def _find(self, conversation_id: str) -> tuple[Found, bytes]:
        try:
            async with asyncio.timeout(_FIND_S):
                found = await self._lookup.find(conversation_id)
        except TimeoutError:
            raise Refused(Problem("the state topic could not be read in time: try again later", 504)) from None
        except ExternalError as error:
            raise Refused(Problem(str(error), 503)) from None
        match found:
            case Found(state=bytes(state)):
                return found, state
            case Found(partition, origin):
                where = "this worker's" if origin == "worker" else "another worker's, its state topic was read whole"
                raise Refused(Problem(f"no such conversation is known; its partition is {where}", 404, partition))
            case NotOpen(partition):
                raise Refused(
                    Problem("the conversation's partition is this worker's, but not open yet", 503, partition),
                    {"Retry-After": "2"},
                )
            case Unfinished(partition, read_from, begin):
                raise Refused(
                    Problem(
                        f"the conversation's partition is another worker's; in its state topic it is not from offset "
                        f"{read_from} on, and {LOOK_S:g} s did not suffice to read back to {begin}: ask that worker",
                        504,
                        partition,
                    )
                )
            case None:
                raise Refused(Problem("it is not known yet how many partitions there are", 503), {"Retry-After": "2"})
