"""A stream of records as a relay delivers it: several envelopes, out of order, repeated, some of them broken."""

import heapq
import random
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from consumer.simulator.frames import FLAT_TOPICS, Envelope, broken, enveloped, flat, ignorable
from consumer.simulator.story import STEP_S, Change, Story

Headers = tuple[tuple[str, bytes], ...]

DORMANT_PER_ACTIVE_MAX: Final = 2
"""Parked, scheduled and to be reopened, at most, for each conversation under way; what comes beyond does not wait."""
HELD_BACK_MAX: Final = 20_000
"""Records on their late way at most, some 70 MB; what comes beyond is in time."""
_BESIDES_MAX = 0.9
_PAUSE_S = 30.0
"""What a pause that may take hours is cut to where too many conversations are dormant."""
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
"""The least and the most that a field of `Traffic` may be."""
_HEADERS: Final[dict[Envelope, Headers]] = {
    "websocket": (("relay", b"websocket"),),
    "eventbridge": (("relay", b"eventbridge"),),
    "bare": (),
}

_encode = msgspec.json.Encoder().encode


class Traffic(Struct, frozen=True, kw_only=True):
    """What the stream is like; shares are from 0 to 1. Raises ValueError if it cannot be like that.

    Stream time is the records' own: nothing here knows a clock. Conversations live `compression` times as fast as in
    life, which follows from how many there are and how often they change.
    """

    seed: int = 1
    start_ms: int = 1_767_225_600_000
    """Epoch milliseconds at which the stream begins; 2010 to 2100."""
    records_per_s: float = 500.0
    """Changes of conversations per second of stream time, about; twins and other frames come on top."""
    conversations: int = 200
    """Conversations under way at the same time; up to `DORMANT_PER_ACTIVE_MAX` times as many lie dormant."""
    disorder: float = 0.2
    """Of all records: delivered late."""
    delay_s_max: float = 5.0
    """How late they are at most, in seconds of stream time; the mean is half of it."""
    duplicates: float = 0.1
    """Of all records: delivered a second time, later by as much."""
    broken: float = 0.01
    """Of all records but duplicates: broken ones, delivered besides."""
    flat: float = 0.2
    """Of the changes in media that have one: published in the flat shape as well."""
    eventbridge: float = 0.3
    """Of the updates: in this envelope; flat ones that would come bare are WebSocket notifications too."""
    bare: float = 0.1
    """Of the nested updates: without an envelope. All others are WebSocket notifications."""
    ignorable: float = 0.02
    """Of all records but duplicates: heartbeats and other frames that are no updates, delivered besides."""

    def __post_init__(self) -> None:
        """Refuse what no stream can be like. Not a number is outside of all bounds."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value!r}")
        if self.eventbridge + self.bare > 1:
            raise ValueError(f"eventbridge + bare must be at most 1, not {self.eventbridge + self.bare!r}")
        if self.broken + self.ignorable > _BESIDES_MAX:
            raise ValueError(f"broken + ignorable must be at most {_BESIDES_MAX}, not {self.broken + self.ignorable!r}")

    @property
    def compression(self) -> float:
        """Seconds of life in a second of stream time."""
        return STEP_S * self.records_per_s / self.conversations


class Draft(Struct, frozen=True, gc=False):
    """A record to be written."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    """When it was published: shortly after `event_ms`, however late it is delivered."""
    true_order: int
    """Its place in the order in which things happened; a repeated record has its original's."""
    broken: bool = False
    headers: Headers = ()
    event_ms: int = 0
    """When it happened, in epoch milliseconds of stream time; never falls along `true_order`."""


def records(traffic: Traffic) -> Iterator[Draft]:
    """The stream in the order of delivery; endless, in bounded memory. The same traffic gives the same bytes."""
    chance = random.Random(traffic.seed)
    delay_ms = traffic.delay_s_max * 1_000
    late: list[tuple[float, int, Draft]] = []
    for draft in _published(traffic, chance):
        now_ms, number = draft.event_ms, 2 * draft.true_order
        while late and late[0][0] <= now_ms:
            yield heapq.heappop(late)[2]
        room = len(late) < HELD_BACK_MAX
        repeated, disordered = chance.random() < traffic.duplicates, chance.random() < traffic.disorder
        if disordered and room:
            heapq.heappush(late, (now_ms + chance.random() * delay_ms, number, draft))
        else:
            yield draft
        if repeated and room:
            heapq.heappush(late, (now_ms + chance.random() * delay_ms, number + 1, draft))
        elif repeated:
            yield draft


def _published(traffic: Traffic, chance: random.Random) -> Iterator[Draft]:
    """Everything once, in the order in which it happens."""
    besides = 1 - traffic.broken - traffic.ignorable
    broken_each, ignorable_each = traffic.broken / besides, traffic.ignorable / besides
    order = 0
    for story, change in _changes(traffic, chance):
        body = _encode(story.body())
        published_ms, key = story.published_ms, story.id.encode()
        drafts = [_nested(traffic, chance, story, body)]
        if change.array in FLAT_TOPICS and chance.random() < traffic.flat:
            drafts.append(_flat(traffic, chance, story, change.array))
        for value, headers in drafts:
            yield Draft(key, value, published_ms, order, headers=headers, event_ms=story.now_ms)
            order += 1
            for _ in range(_times(chance, ignorable_each)):
                yield Draft(None, ignorable(chance, story), published_ms, order, event_ms=story.now_ms)
                order += 1
            for _ in range(_times(chance, broken_each)):
                yield _broken(traffic, chance, story, body, order)
                order += 1


def _broken(traffic: Traffic, chance: random.Random, story: Story, body: bytes, order: int) -> Draft:
    envelope = _envelope(traffic, chance)
    key, value = broken(chance, envelope, story.id, body, story.published_ms)
    headers = _HEADERS[envelope]
    return Draft(key, value, story.published_ms, order, broken=True, headers=headers, event_ms=story.now_ms)


def _times(chance: random.Random, mean: float) -> int:
    """A number of times, either side of `mean`."""
    return int(mean + chance.random())


def _changes(traffic: Traffic, chance: random.Random) -> Iterator[tuple[Story, Change]]:
    """Changes of all conversations as they happen; each is valid until the next is asked for."""
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
        now_ms, number, slept, story, changes = heapq.heappop(stories)
        if slept:
            active, dormant = active + 1, dormant - 1
        story.now_ms = now_ms
        change = next(changes, None)
        if change is None:
            active -= 1
            continue
        wait_s, sleeps = change.wait_s, change.dormant
        if sleeps and dormant >= DORMANT_PER_ACTIVE_MAX * traffic.conversations:
            wait_s, sleeps = _PAUSE_S, False
        if sleeps:
            active, dormant = active - 1, dormant + 1
        next_ms = now_ms + max(1, change.wait_ms_min, int(wait_s * ms_per_s))
        heapq.heappush(stories, (next_ms, number, sleeps, story, changes))
        if change.array:
            yield story, change


def _envelope(traffic: Traffic, chance: random.Random) -> Envelope:
    draw = chance.random()
    if draw < traffic.bare:
        return "bare"
    return "eventbridge" if draw < traffic.bare + traffic.eventbridge else "websocket"


def _nested(traffic: Traffic, chance: random.Random, story: Story, body: bytes) -> tuple[bytes, Headers]:
    envelope = _envelope(traffic, chance)
    of_queue = story.queue_id is not None and chance.random() < 0.25
    template = "v2.routing.queues.{id}.conversations" if of_queue else "v2.users.{id}.conversations"
    topic = template.replace("{id}", (story.queue_id or "") if of_queue else story.user_id)
    return enveloped(envelope, topic, template, story.id, body, story.published_ms), _HEADERS[envelope]


def _flat(traffic: Traffic, chance: random.Random, story: Story, array: str) -> tuple[bytes, Headers]:
    envelope = _envelope(traffic, chance)
    if envelope == "bare":  # nobody could tell the medium of a bare flat body
        envelope = "websocket"
    template = f"v2.users.{{id}}.conversations.{FLAT_TOPICS[array]}"
    topic = template.replace("{id}", story.user_id)
    body = _encode(flat(story, array))
    return enveloped(envelope, topic, template, story.id, body, story.published_ms), _HEADERS[envelope]
