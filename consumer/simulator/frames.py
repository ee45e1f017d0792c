"""The values that a relay writes: conversations of both shapes in their envelopes, other frames, and broken ones."""

import random
from typing import Final, Literal

import msgspec

from consumer.simulator.cast import Json, iso, uuid
from consumer.simulator.story import Story

Envelope = Literal["websocket", "eventbridge", "bare"]

FLAT_TOPICS: Final = {
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
"""The last segment of the per-medium topic, by array; the other two media have no such topic."""

_FLAT_FIELDS = (
    "state",
    "initialState",
    "provider",
    "disconnectType",
    "direction",
    "held",
    "startHoldTime",
    "errorInfo",
    "callbackScheduledTime",
    "muted",
    "type",
    "wrapup",
    "connectedTime",
    "parkTime",
    "resumeTime",
    "cobrowseSessionId",
    "cobrowseRole",
    "controlling",
    "viewerUrl",
    "providerEventTime",
)
_FROM_PARTICIPANT = (
    "id",
    "name",
    "purpose",
    "address",
    "attributes",
    "wrapupRequired",
    "startAcwTime",
    "endAcwTime",
    "conversationRoutingData",
    "consultParticipantId",
    "monitoredParticipantId",
    "coachedParticipantId",
    "bargedParticipantId",
)

_encode = msgspec.json.Encoder().encode


def wrap(envelope: Envelope, topic: str, template: str, conversation: str, body: bytes, at_ms: int) -> bytes:
    """Put an encoded body into its envelope; `template` is the topic with `{id}` in the place of the id."""
    if envelope == "bare":
        return body
    head = b'{"topicName":"%b","version":"2","eventBody":%b,"metadata":{"CorrelationId":"%b"}'
    notification = head % (topic.encode(), body, conversation.encode())
    if envelope == "websocket":
        return notification + b"}"
    at = iso(at_ms)
    event = (
        f'{{"version":"0","id":"{conversation[::-1]}","detail-type":"{template}",'
        f'"source":"aws.partner/genesys.com/cloud/00000000-0000-4000-8000-000000000000/relay","account":"000000000000",'
        f'"time":"{at[:19]}Z","region":"eu-central-1","resources":[],"detail":'
    )
    return b'%b%b,"timestamp":"%b"}}' % (event.encode(), notification, at.encode())


def flatten(story: Story, array: str) -> Json:
    """The per-medium body: the fields of a participant's latest communication are on the participant itself."""
    participants = []
    for participant in story.participants:
        legs = participant.get(array)
        if not legs:
            continue
        leg = legs[-1]
        flat: Json = {name: participant[name] for name in _FROM_PARTICIPANT if name in participant}
        flat |= {name: leg[name] for name in _FLAT_FIELDS if name in leg}
        flat |= {"peer": leg["peerId"], "endTime": leg.get("disconnectedTime")}
        flat["queue"] = _reference(participant.get("queueId"))
        flat["externalContact"] = _reference(participant.get("externalContactId"))
        if "userId" in participant:
            flat["user"] = {"id": participant["userId"], "name": participant["name"]}
        participants.append(flat)
    return {"id": story.id, "participants": participants, "otherMediaUris": [], "divisions": story.divisions}


def make_ignorable(chance: random.Random, story: Story) -> bytes:
    """A frame that is not a conversation update."""
    frames: tuple[Json, ...] = (
        {"topicName": "channel.metadata", "eventBody": {"message": "WebSocket Heartbeat"}},
        {"topicName": "v2.system.socket_closing", "eventBody": {"message": "maintenance"}},
        {"result": "200", "status": "subscribed"},
        {
            "topicName": f"v2.detail.events.conversation.{story.id}.acw",
            "eventBody": {"conversationId": story.id, "eventTime": story.now_ms, "participantId": uuid(chance)},
        },
    )
    return _encode(chance.choices(frames, (6, 1, 1, 3))[0])


def make_broken(
    chance: random.Random, envelope: Envelope, conversation: str, body: bytes, at_ms: int
) -> tuple[bytes | None, bytes]:
    """Key and value of a record that has to be rejected, from a conversation's id and its encoded nested body."""
    key: bytes | None = conversation.encode()
    match chance.randrange(7):
        case 0:  # broken JSON
            body = body.replace(b'"', b"'", 9)
        case 1:  # a wrong type in a used field
            body = body.replace(b'"purpose":"', b'"purpose":7,"x":"', 1)
        case 2:
            body = b"{" + body[body.index(b",") + 1 :]  # without the conversation's id
        case 3:
            body = body.replace(b'"purpose":"', b'"purpose":"\xff\xfe', 1)
        case 4:
            key = uuid(chance).encode()  # that of another conversation
        case 5:
            key = None
        case _:
            value = _notification(chance, envelope, conversation, body, at_ms)
            return key, value[: chance.randrange(1, len(value))]  # truncated
    return key, _notification(chance, envelope, conversation, body, at_ms)


def _notification(chance: random.Random, envelope: Envelope, conversation: str, body: bytes, at_ms: int) -> bytes:
    template = "v2.users.{id}.conversations"
    return wrap(envelope, template.format(id=uuid(chance)), template, conversation, body, at_ms)


def _reference(entity: str | None) -> Json:
    return {"id": entity} if entity else {}
