"""Searching the live communications of this worker, the oldest first, a page at a time and in slices.

A search looks at no conversation that has no live communication: the census keeps those. It gives the event loop its
turn every few milliseconds, and ends a page early when it has cost enough.
"""

import asyncio
import heapq
import time
from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from consumer.core.view import communications
from consumer.runtime.lane import Lane
from schemas.query import CommunicationView, LiveCommunication, LiveCommunications
from schemas.state import ConversationState, Media

Position = tuple[str, str, str, str, str]
"""Where a communication is in the order: since, conversation, media, participant, communication (empty for no id)."""

_Group = tuple[str, str, str]
"""Since, conversation and media: live communications of one conversation that began at the same time."""

_AHEAD = 1_000
"""Groups that are put in order at a time."""
_LAST = "\U0010ffff"
"""Comes after every id."""
_COST_S_MAX = 0.5
_SLICE_S = 0.002
_SLICE_KEYS = 1_000
_DECODED_MAX = 32
"""Conversations kept decoded: one with many communications has many places in the order."""
_STATE = msgspec.json.Decoder(ConversationState)


class Wanted(Struct, frozen=True, kw_only=True):
    """What live communications have to be to be found. None stands for any."""

    media: Media | None = None
    state: str | None = None
    queue_id: str | None = None
    user_id: str | None = None
    begun_by: str | None = None
    """Published time of the latest beginning."""
    begun_from: str | None = None
    """Published time of the earliest beginning."""

    def takes_since(self, since: str) -> bool:
        """Whether one that began then can be meant."""
        return (self.begun_by is None or since <= self.begun_by) and (
            self.begun_from is None or since >= self.begun_from
        )

    def takes(self, view: CommunicationView) -> bool:
        """Whether it is one of those meant."""
        return (
            view.live
            and (self.state is None or view.state == self.state)
            and (self.queue_id is None or view.queue_id == self.queue_id)
            and (self.user_id is None or view.user_id == self.user_id)
        )


class _Slices:
    """Gives the loop its turn when a slice is used up, and adds up what was used."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._began_s = time.perf_counter()

    async def turn(self, *, now: bool = False) -> None:
        used_s = time.perf_counter() - self._began_s
        if now or used_s >= _SLICE_S:
            self.spent_s += used_s
            await asyncio.sleep(0)
            self._began_s = time.perf_counter()


class LiveSearch:
    """Searches the open lanes. `spent_s` adds up the loop's time that all searches took."""

    def __init__(self, lanes: Mapping[int, Lane], cycles_max: int) -> None:
        self._lanes = lanes
        self._cycles_max = cycles_max
        self.spent_s = 0.0

    async def page(
        self, wanted: Wanted, after: Position | None, limit: int
    ) -> tuple[LiveCommunications, Position | None]:
        """Up to `limit` communications after a position, and the position to go on from, None at the end.

        The cursor of the page is left to whoever writes positions down.
        """
        slices = _Slices()
        lanes = [lane for lane in self._lanes.values() if lane.is_open]
        decoded: dict[str, list[CommunicationView]] = {}
        items: list[LiveCommunication] = []
        at, is_more = after, True
        while is_more and len(items) < limit and slices.spent_s < _COST_S_MAX:
            candidates = await _candidates(lanes, wanted, at, slices)
            is_more = len(candidates) == _AHEAD
            looking_from_s = slices.spent_s  # putting in order is not counted, so each page gets on by one at least
            for position, view in self._in_order(lanes, candidates, at, decoded):
                if len(items) == limit or slices.spent_s - looking_from_s >= _COST_S_MAX:
                    is_more = True
                    break
                if view is not None and wanted.takes(view):
                    items.append(_item(position, view))
                at = position
                await slices.turn()
        await slices.turn(now=True)
        self.spent_s += slices.spent_s
        partitions = sorted(lane.partition for lane in lanes)
        return LiveCommunications(partitions, items, None), at if is_more else None

    def _in_order(
        self,
        lanes: list[Lane],
        candidates: list[_Group],
        after: Position | None,
        decoded: dict[str, list[CommunicationView]],
    ) -> Iterator[tuple[Position, CommunicationView | None]]:
        """The communications of groups, after a position; each group ends with a position that has none.

        Those of one conversation and medium are in order as they come: by participant and id.
        """
        for group in candidates:
            since, conversation_id, media = group
            for view in self._views(lanes, conversation_id, decoded):
                position = (*group, view.participant_id, view.communication_id or "")
                if view.media == media and _began(view) == since and (after is None or position > after):
                    yield position, view
            yield _end(group), None

    def _views(
        self, lanes: list[Lane], conversation_id: str, decoded: dict[str, list[CommunicationView]]
    ) -> list[CommunicationView]:
        views = decoded.get(conversation_id)
        if views is None:
            state = next((found for lane in lanes if (found := lane.store.get(conversation_id)) is not None), None)
            views = [] if state is None else communications(_STATE.decode(state), self._cycles_max)
            if len(decoded) >= _DECODED_MAX:
                decoded.clear()
            decoded[conversation_id] = views
        return views


async def _candidates(lanes: list[Lane], wanted: Wanted, after: Position | None, slices: _Slices) -> list[_Group]:
    """The first `_AHEAD` groups in order that can be meant and do not end before a position."""
    first: list[_Group] = []
    for census in [lane.store.census for lane in lanes]:
        for media in census.live_media() if wanted.media is None else (wanted.media,):
            live = census.live(media)
            conversation_ids = list(live)
            await slices.turn(now=True)
            for start in range(0, len(conversation_ids), _SLICE_KEYS):
                found = [
                    (since, conversation_id, media)
                    for conversation_id in conversation_ids[start : start + _SLICE_KEYS]
                    for since in live.get(conversation_id, ())
                    if wanted.takes_since(since)
                ]
                first = _least(first, [each for each in found if after is None or _end(each) > after])
                await slices.turn(now=True)
    return first


def _least(first: list[_Group], found: list[_Group]) -> list[_Group]:
    """The least of both, in order, as many as one page looks at."""
    if len(first) == _AHEAD:
        found = [each for each in found if each < first[-1]]
    return heapq.nsmallest(_AHEAD, [*first, *found]) if found else first


def _end(group: _Group) -> Position:
    """The position after all communications of a group."""
    return (*group, _LAST, "")


def _began(view: CommunicationView) -> str:
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
