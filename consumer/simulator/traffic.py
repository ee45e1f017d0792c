"""A stream of records as a relay delivers it: several envelopes, out of order, repeated, some of them broken."""

import heapq
import random
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from consumer.simulator.story import Json, Story, iso

Share = Annotated[float, Meta(ge=0, le=1)]

_ENCODER = msgspec.json.Encoder()
_FLAT_TOPICS = {
    "calls": "calls",
    "callbacks": "callbacks",
    "chats": "chats",
    "cobrowsesessions": "cobrowseSessions",
    "emails": "emails",
    "messages": "messages",
    "screenshares": "screenshares",
    "socialExpressions": "socialexpressions",
    "videos": "videos",
}
_FLAT_FIELDS = (
    "state",
    "initialState",
    "provider",
    "disconnectType",
    "direction",
    "held",
    "muted",
    "type",
    "wrapup",
    "connectedTime",
    "parkTime",
    "cobrowseSessionId",
    "cobrowseRole",
    "controlling",
    "viewerUrl",
    "providerEventTime",
)


class Traffic(Struct, frozen=True, kw_only=True):
    """What the stream is like. Shares are of all records of the kind they apply to, from 0 to 1."""

    seed: int = 1
    start_ms: int = 1_767_225_600_000
    """Epoch milliseconds at which the stream begins."""
    records_per_s: Annotated[float, Meta(gt=0)] = 500.0
    """Conversation updates per second of the stream's own time."""
    conversations: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """Conversations under way at the same time."""
    disorder: Share = 0.2
    """Records delivered late."""
    delay_s_max: Annotated[float, Meta(ge=0, le=600)] = 5.0
    """How late they are at most."""
    duplicates: Share = 0.1
    """Records delivered a second time."""
    broken: Share = 0.01
    """Broken records delivered besides."""
    flat: Share = 0.2
    """Updates published in the flat shape as well."""
    eventbridge: Share = 0.3
    bare: Share = 0.1
    """Updates in these envelopes; the rest comes as WebSocket notifications."""
    ignorable: Share = 0.02
    """Heartbeats and other frames delivered besides."""


class Draft(Struct, frozen=True, gc=False):
    """A record to be written."""

    key: bytes | None
    value: bytes
    timestamp_ms: int
    true_order: int
    """Its place in the order in which things happened; a repeated record has its original's."""
    broken: bool = False


def records(traffic: Traffic) -> Iterator[Draft]:
    """The stream in the order of delivery; endless, in bounded memory. The same traffic gives the same bytes."""
    chance = random.Random(traffic.seed)
    delayed: list[tuple[int, int, Draft]] = []
    for number, draft in enumerate(_published(traffic, chance)):
        while delayed and delayed[0][0] <= draft.timestamp_ms:
            yield heapq.heappop(delayed)[2]
        late = chance.random() < traffic.disorder
        if chance.random() < traffic.duplicates:
            heapq.heappush(delayed, (draft.timestamp_ms + _delay_ms(traffic, chance), 2 * number, draft))
        if late:
            heapq.heappush(delayed, (draft.timestamp_ms + _delay_ms(traffic, chance), 2 * number + 1, draft))
        else:
            yield draft


def _delay_ms(traffic: Traffic, chance: random.Random) -> int:
    return int(chance.random() * traffic.delay_s_max * 1_000)


def _published(traffic: Traffic, chance: random.Random) -> Iterator[Draft]:
    """Everything in the order in which it happens."""
    step_ms = max(2, int(traffic.conversations * 1_000 / traffic.records_per_s))
    stories: list[tuple[int, int, Story, Iterator[str]]] = []
    number = order = 0

    def begin(at_ms: int) -> None:
        nonlocal number
        story = Story(chance, at_ms, step_ms)
        number += 1
        heapq.heappush(stories, (at_ms, number, story, story.changes()))

    for _ in range(traffic.conversations):
        begin(traffic.start_ms + chance.randrange(step_ms))
    while True:
        _, tie, story, changes = heapq.heappop(stories)
        array = next(changes, None)
        if array is None:
            begin(story.now_ms)
            continue
        for draft in _drafts(traffic, chance, story, array, order):
            order += 1
            yield draft
        heapq.heappush(stories, (story.now_ms, tie, story, changes))


def _drafts(traffic: Traffic, chance: random.Random, story: Story, array: str, order: int) -> Iterator[Draft]:
    at_ms, key = story.now_ms, story.id.encode()
    topic = f"v2.users.{story.user_id}.conversations"
    value = _enveloped(traffic, chance, topic, story.body(), at_ms)
    yield Draft(key, value, at_ms, order)
    if array in _FLAT_TOPICS and chance.random() < traffic.flat:
        order += 1
        flat = _notification(f"{topic}.{_FLAT_TOPICS[array]}", _flat(story, array))
        yield Draft(key, _ENCODER.encode(flat), at_ms, order)
    if chance.random() < traffic.ignorable:
        order += 1
        yield Draft(None, _ENCODER.encode(_ignorable(chance, story)), at_ms, order)
    if chance.random() < traffic.broken:
        order += 1
        yield _broken(chance, key, value, at_ms, order)


def _notification(topic: str, body: Json) -> Json:
    return {"topicName": topic, "version": "2", "eventBody": body, "metadata": {"CorrelationId": body["id"]}}


def _enveloped(traffic: Traffic, chance: random.Random, topic: str, body: Json, at_ms: int) -> bytes:
    draw = chance.random()
    if draw < traffic.bare:
        return _ENCODER.encode(body)
    notification = _notification(topic, body)
    if draw < traffic.bare + traffic.eventbridge:
        notification["timestamp"] = iso(at_ms)
        event: Json = {
            "version": "0",
            "id": body["id"],
            "detail-type": "v2.users.{id}.conversations",
            "source": "aws.partner/genesys.com/cloud/example/relay",
            "time": iso(at_ms)[:19] + "Z",
            "resources": [],
            "detail": notification,
        }
        return _ENCODER.encode(event)
    return _ENCODER.encode(notification)


def _flat(story: Story, array: str) -> Json:
    """The per-medium body: the latest communication of each participant stands on the participant itself."""
    participants = []
    for participant in story.participants:
        legs = participant.get(array)
        if not legs:
            continue
        leg = legs[-1]
        flat: Json = {name: leg[name] for name in _FLAT_FIELDS if name in leg}
        flat |= {"id": participant["id"], "purpose": participant["purpose"], "peer": leg.get("peerId")}
        flat |= {"endTime": leg.get("disconnectedTime"), "queue": {}, "attributes": participant["attributes"]}
        if "userId" in participant:
            flat["user"] = {"id": participant["userId"], "name": participant["name"]}
        participants.append(flat)
    return {"id": story.id, "participants": participants, "otherMediaUris": []}


def _ignorable(chance: random.Random, story: Story) -> Json:
    frames: tuple[Json, ...] = (
        {"topicName": "channel.metadata", "eventBody": {"message": "WebSocket Heartbeat"}},
        {"topicName": "v2.system.socket_closing", "eventBody": {"message": "maintenance"}},
        {"result": "200", "status": "subscribed"},
        {"topicName": f"v2.detail.events.conversation.{story.id}.acw", "eventBody": {"eventTime": story.now_ms}},
    )
    return chance.choice(frames)


def _broken(chance: random.Random, key: bytes, value: bytes, at_ms: int, order: int) -> Draft:
    def wrong(body: Any) -> bytes:
        return _ENCODER.encode(_notification("v2.users.x.conversations", {"id": key.decode(), **body}))

    kinds = (
        value[: len(value) // 2],
        value.replace(b'"', b"'", 9),
        wrong({"participants": [{"id": 7}]}),
        wrong({"participants": {}}),
        _ENCODER.encode(_notification("v2.users.x.conversations", {"id": "", "participants": []})),
        wrong({"participants": [{"id": "p", "purpose": "BAD"}]}).replace(b"BAD", b"\xff\xfe"),
    )
    if chance.random() < 0.2:
        return Draft(b"another-conversation", value, at_ms, order, broken=True)
    return Draft(key, chance.choice(kinds), at_ms, order, broken=True)
