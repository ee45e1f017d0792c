"""Search the live communications of this worker: the oldest first, a page at a time.

A search looks only at conversations that have live communications, which the live index knows. It yields to the event
loop every few milliseconds, and ends a page early when it has used up its time.
"""

import asyncio
import heapq
import time
from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from consumer.query.timeline_view import communications
from consumer.worker.lane_status import LaneStatus
from schemas.query import CommunicationView, LiveCommunication
from schemas.state import ConversationState, Media

Position = tuple[str, str, str, str, str]
"""A communication's place in the order: since, conversation, media, participant, communication (empty for no id)."""

_Group = tuple[str, str, str]
"""Since, conversation and media of the live communications of one conversation that began at the same time."""

_GROUPS_MAX = 1_000
"""How many groups are sorted at a time."""
_LAST = "\U0010ffff"
"""Sorts after every id."""
_PAGE_S_MAX = 0.5
"""The loop's time after which a page ends."""
_SLICE_S = 0.002
_SLICE_KEYS = 1_000
_DECODED_MAX = 32
"""How many conversations are kept decoded: one with many communications comes up many times in the order."""
_STATE = msgspec.json.Decoder(ConversationState)


class LiveFilter(Struct, frozen=True, kw_only=True):
    """Which live communications to find. None matches any."""

    media: Media | None = None
    state: str | None = None
    queue_id: str | None = None
    user_id: str | None = None
    begun_by: str | None = None
    """The latest time at which they began, as published."""
    begun_from: str | None = None
    """The earliest time at which they began, as published."""

    def matches_since(self, since: str) -> bool:
        """Whether a communication that began then can match."""
        return (self.begun_by is None or since <= self.begun_by) and (
            self.begun_from is None or since >= self.begun_from
        )

    def matches(self, view: CommunicationView) -> bool:
        """Whether a communication matches, apart from its medium and when it began."""
        return (
            view.live
            and (self.state is None or view.state == self.state)
            and (self.queue_id is None or view.queue_id == self.queue_id)
            and (self.user_id is None or view.user_id == self.user_id)
        )


class SearchPage(Struct, frozen=True):
    """A page of live communications of one worker."""

    partitions: list[int]
    """Those that were searched, sorted."""
    items: list[LiveCommunication]


class _Slices:
    """Yields to the event loop when a slice of time is used up, and adds up the time used."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._began_s = time.perf_counter()

    async def yield_if_due(self) -> None:
        if time.perf_counter() - self._began_s >= _SLICE_S:
            await self.yield_now()

    async def yield_now(self) -> None:
        self.spent_s += time.perf_counter() - self._began_s
        await asyncio.sleep(0)
        self._began_s = time.perf_counter()


class LiveSearch:
    """Searches the open lanes. `spent_s` adds up the loop's time that all searches used."""

    def __init__(self, lanes: Mapping[int, LaneStatus], cycles_max: int) -> None:
        self._lanes = lanes
        self._cycles_max = cycles_max
        self.spent_s = 0.0

    async def page(
        self, live_filter: LiveFilter, after: Position | None, limit: int
    ) -> tuple[SearchPage, Position | None]:
        """Up to `limit` communications after a position, and the position to continue from; None at the end."""
        slices = _Slices()
        lanes = [lane for lane in self._lanes.values() if lane.is_open]
        decoded: dict[str, list[CommunicationView]] = {}
        items: list[LiveCommunication] = []
        position, has_more = after, True
        while has_more and len(items) < limit and slices.spent_s < _PAGE_S_MAX:
            groups = await _find_groups(lanes, live_filter, position, slices)
            has_more = len(groups) == _GROUPS_MAX
            sorted_s = slices.spent_s  # counts from here, so that every page advances however long the sorting took
            for next_position, view in self._views_in_order(lanes, groups, position, decoded):
                if len(items) == limit or slices.spent_s - sorted_s >= _PAGE_S_MAX:
                    has_more = True
                    break
                if view is not None and live_filter.matches(view):
                    items.append(_item(next_position, view))
                position = next_position
                await slices.yield_if_due()
        await slices.yield_now()
        self.spent_s += slices.spent_s
        partitions = sorted(lane.partition for lane in lanes)
        return SearchPage(partitions, items), position if has_more else None

    def _views_in_order(
        self,
        lanes: list[LaneStatus],
        groups: list[_Group],
        after: Position | None,
        decoded: dict[str, list[CommunicationView]],
    ) -> Iterator[tuple[Position, CommunicationView | None]]:
        """The communications of sorted groups, after a position. Each group ends with a position that has none.

        Those of one conversation and medium are sorted already: by participant and id.
        """
        for group in groups:
            since, conversation_id, media = group
            for view in self._views(lanes, conversation_id, decoded):
                position = (*group, view.participant_id, view.communication_id or "")
                if view.media == media and _since(view) == since and (after is None or position > after):
                    yield position, view
            yield _end(group), None

    def _views(
        self, lanes: list[LaneStatus], conversation_id: str, decoded: dict[str, list[CommunicationView]]
    ) -> list[CommunicationView]:
        views = decoded.get(conversation_id)
        if views is None:
            states = (lane.engine.states.get(conversation_id) for lane in lanes)
            state = next((state for state in states if state is not None), None)
            views = [] if state is None else communications(_STATE.decode(state), self._cycles_max)
            if len(decoded) >= _DECODED_MAX:
                decoded.clear()
            decoded[conversation_id] = views
        return views


async def _find_groups(
    lanes: list[LaneStatus], live_filter: LiveFilter, after: Position | None, slices: _Slices
) -> list[_Group]:
    """The first `_GROUPS_MAX` groups, sorted, that can match and end after a position."""
    first: list[_Group] = []
    for live_index in [lane.engine.states.live_index for lane in lanes]:
        for media in live_index.live_media() if live_filter.media is None else (live_filter.media,):
            live = live_index.live(media)
            conversation_ids = list(live)
            await slices.yield_now()
            for start in range(0, len(conversation_ids), _SLICE_KEYS):
                groups = [
                    (since, conversation_id, media)
                    for conversation_id in conversation_ids[start : start + _SLICE_KEYS]
                    for since in live.get(conversation_id, ())
                    if live_filter.matches_since(since)
                ]
                first = _keep_first(first, [group for group in groups if after is None or _end(group) > after])
                await slices.yield_now()
    return first


def _keep_first(first: list[_Group], groups: list[_Group]) -> list[_Group]:
    """The first `_GROUPS_MAX` of both lists, sorted; `first` is sorted already."""
    if len(first) == _GROUPS_MAX:
        groups = [group for group in groups if group < first[-1]]
    return heapq.nsmallest(_GROUPS_MAX, [*first, *groups]) if groups else first


def _end(group: _Group) -> Position:
    """The position after all communications of a group."""
    return (*group, _LAST, "")


def _since(view: CommunicationView) -> str:
    return view.transitions[0].event_time


def _item(position: Position, view: CommunicationView) -> LiveCommunication:
    return LiveCommunication(
        conversation_id=position[1],
        participant_id=view.participant_id,
        media=view.media,
        communication_id=view.communication_id,
        purpose=view.purpose,
        user_id=view.user_id,
        queue_id=view.queue_id,
        state=view.state,
        state_time=view.state_time,
        time_class=view.time_class,
        since=position[0],
    )
