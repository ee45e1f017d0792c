"""A stream of records as a relay delivers them: in several envelopes, out of order, repeated, some broken."""

import heapq
import random
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from consumer.simulator.frames import FLAT_TOPICS, Envelope, flatten, make_broken, make_ignorable, wrap
from consumer.simulator.story import STEP_S, Change, Story

Headers = tuple[tuple[str, bytes], ...]

DORMANT_PER_ACTIVE_MAX: Final = 2
"""How many conversations may rest per active one: parked, scheduled, to be reopened. Further ones do not rest."""
HELD_BACK_MAX: Final = 20_000
"""How many records may be late at the same time, some 70 MB. Further ones are in time."""
_EXTRA_MAX = 0.9
_PAUSE_S = 30.0
"""The length of a pause, which may otherwise take hours, while too many conversations are dormant."""
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "start_ms": (1_262_304_000_000, 4_102_444_800_000),
    "records_per_s": (0.001, 1_000_000),
    "conversations": (1, 1_000_000),
    "disorder": (0, 1),
    "delay_s_max": (0, 600),
    "duplicates": (0, 1),
    "broken": (0, 1),
    "flat": (0, 1),
    "eventbridge": (0, 1),
    "bare": (0, 1),
    "ignorable": (0, 1),
}
"""The least and the greatest value of a field of `Traffic`."""
_HEADERS: Final[dict[Envelope, Headers]] = {
    "websocket": (("relay", b"websocket"),),
    "eventbridge": (("relay", b"eventbridge"),),
    "bare": (),
}

_encode = msgspec.json.Encoder().encode


class Traffic(Struct, frozen=True, kw_only=True):
    """The parameters of the stream; shares are from 0 to 1. Raises ValueError for those that contradict each other.

    Stream time follows from the parameters: nothing here reads a clock. Conversations run `compression` times as fast
    as real ones, which follows from their number and how often they change.
    """

    seed: int = 1
    start_ms: int = 1_767_225_600_000
    """When the stream begins, in epoch milliseconds; 2010 to 2100."""
    records_per_s: float = 500.0
    """Changes of conversations per second of stream time, about; flat copies and other frames come on top."""
    conversations: int = 200
    """Active conversations at the same time; up to `DORMANT_PER_ACTIVE_MAX` times as many are dormant."""
    disorder: float = 0.2
    """Share of all records that are delivered late."""
    delay_s_max: float = 5.0
    """How late they are at most, in stream time; the mean is half of it."""
    duplicates: float = 0.1
    """Share of all records that are delivered a second time, later by as much."""
    broken: float = 0.01
    """Share of broken records, which are extra, of all records but duplicates."""
    flat: float = 0.2
    """Share of changes that are published in the flat shape as well, in the media that have one."""
    eventbridge: float = 0.3
    """Share of the updates in this envelope; flat ones that would be bare are WebSocket notifications instead."""
    bare: float = 0.1
    """Share of the nested updates without an envelope. All others are WebSocket notifications."""
    ignorable: float = 0.02
    """Share of heartbeats and other frames that are no updates, which are extra, of all records but duplicates."""

    def __post_init__(self) -> None:
        """Refuse values out of bounds, not-a-number among them, and shares that exceed 1 together."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value!r}")
        if self.eventbridge + self.bare > 1:
            raise ValueError(f"eventbridge + bare must be at most 1, not {self.eventbridge + self.bare!r}")
        if self.broken + self.ignorable > _EXTRA_MAX:
            raise ValueError(f"broken + ignorable must be at most {_EXTRA_MAX}, not {self.broken + self.ignorable!r}")

    @property
    def compression(self) -> float:
        """How many seconds of real conversations pass in a second of stream time."""
        return STEP_S * self.records_per_s / self.conversations


class Draft(Struct, frozen=True, gc=False):
    """A record to write."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    """When the record was published: shortly after `event_ms`, however late it is delivered."""
    true_order: int
    """The record's position in the order of the events; a repeated record has the original's."""
    broken: bool = False
    headers: Headers = ()
    event_ms: int = 0
    """When the change happened, in epoch milliseconds of stream time; it never falls along `true_order`."""


def records(traffic: Traffic) -> Iterator[Draft]:
    """The endless stream in the order of delivery, in bounded memory. The same traffic gives the same bytes."""
    chance = random.Random(traffic.seed)
    delay_ms = traffic.delay_s_max * 1_000
    late: list[tuple[float, int, Draft]] = []
    for draft in _publish_in_order(traffic, chance):
        now_ms, number = draft.event_ms, 2 * draft.true_order
        while late and late[0][0] <= now_ms:
            yield heapq.heappop(late)[2]
        has_room = len(late) < HELD_BACK_MAX
        is_repeated, is_late = chance.random() < traffic.duplicates, chance.random() < traffic.disorder
        if is_late and has_room:
            heapq.heappush(late, (now_ms + chance.random() * delay_ms, number, draft))
        else:
            yield draft
        if is_repeated and has_room:
            heapq.heappush(late, (now_ms + chance.random() * delay_ms, number + 1, draft))
        elif is_repeated:
            yield draft


def _publish_in_order(traffic: Traffic, chance: random.Random) -> Iterator[Draft]:
    """Every record once, in the order of the events."""
    updates = 1 - traffic.broken - traffic.ignorable
    broken_per_update, ignorable_per_update = traffic.broken / updates, traffic.ignorable / updates
    order = 0
    for story, change in _merge_changes(traffic, chance):
        body = _encode(story.body())
        published_ms, key = story.published_ms, story.id.encode()
        drafts = [_encode_nested(traffic, chance, story, body)]
        if change.array in FLAT_TOPICS and chance.random() < traffic.flat:
            drafts.append(_encode_flat(traffic, chance, story, change.array))
        for value, headers in drafts:
            yield Draft(key, value, published_ms, order, headers=headers, event_ms=story.now_ms)
            order += 1
            for _ in range(_draw_count(chance, ignorable_per_update)):
                yield Draft(None, make_ignorable(chance, story), published_ms, order, event_ms=story.now_ms)
                order += 1
            for _ in range(_draw_count(chance, broken_per_update)):
                yield _break(traffic, chance, story, body, order)
                order += 1


def _break(traffic: Traffic, chance: random.Random, story: Story, body: bytes, order: int) -> Draft:
    envelope = _draw_envelope(traffic, chance)
    key, value = make_broken(chance, envelope, story.id, body, story.published_ms)
    headers = _HEADERS[envelope]
    return Draft(key, value, story.published_ms, order, broken=True, headers=headers, event_ms=story.now_ms)


def _draw_count(chance: random.Random, mean: float) -> int:
    """A whole number next to `mean`, with this mean."""
    return int(mean + chance.random())


def _merge_changes(traffic: Traffic, chance: random.Random) -> Iterator[tuple[Story, Change]]:
    """Changes of all conversations in their order; a change is valid until the caller asks for the next."""
    ms_per_s = 1_000 / traffic.compression
    active = dormant = begun = 0
    stories: list[tuple[int, int, bool, Story, Iterator[Change]]] = []
    now_ms = traffic.start_ms
    while True:
        while active < traffic.conversations:
            active, begun = active + 1, begun + 1
            at_ms = now_ms + int(chance.random() * 2 * STEP_S * ms_per_s)
            story = Story(chance, at_ms)
            heapq.heappush(stories, (at_ms, begun, False, story, story.changes()))
        now_ms, number, was_dormant, story, changes = heapq.heappop(stories)
        if was_dormant:
            active, dormant = active + 1, dormant - 1
        story.now_ms = now_ms
        change = next(changes, None)
        if change is None:
            active -= 1
            continue
        wait_s, is_dormant = change.wait_s, change.dormant
        if is_dormant and dormant >= DORMANT_PER_ACTIVE_MAX * traffic.conversations:
            wait_s, is_dormant = _PAUSE_S, False
        if is_dormant:
            active, dormant = active - 1, dormant + 1
        next_ms = now_ms + max(1, change.wait_ms_min, int(wait_s * ms_per_s))
        heapq.heappush(stories, (next_ms, number, is_dormant, story, changes))
        if change.array:
            yield story, change


def _draw_envelope(traffic: Traffic, chance: random.Random) -> Envelope:
    draw = chance.random()
    if draw < traffic.bare:
        return "bare"
    return "eventbridge" if draw < traffic.bare + traffic.eventbridge else "websocket"


def _encode_nested(traffic: Traffic, chance: random.Random, story: Story, body: bytes) -> tuple[bytes, Headers]:
    envelope = _draw_envelope(traffic, chance)
    of_queue = story.queue_id is not None and chance.random() < 0.25
    template = "v2.routing.queues.{id}.conversations" if of_queue else "v2.users.{id}.conversations"
    topic = template.replace("{id}", (story.queue_id or "") if of_queue else story.user_id)
    return wrap(envelope, topic, template, story.id, body, story.published_ms), _HEADERS[envelope]


def _encode_flat(traffic: Traffic, chance: random.Random, story: Story, array: str) -> tuple[bytes, Headers]:
    envelope = _draw_envelope(traffic, chance)
    if envelope == "bare":  # the medium of a bare flat body cannot be known
        envelope = "websocket"
    template = f"v2.users.{{id}}.conversations.{FLAT_TOPICS[array]}"
    topic = template.replace("{id}", story.user_id)
    body = _encode(flatten(story, array))
    return wrap(envelope, topic, template, story.id, body, story.published_ms), _HEADERS[envelope]
