"""The participants and communications of a conversation as they first appear on the wire.

Values that never change are encoded once. Values that a story changes stay plain. All persons are invented.
"""

import random
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

Json = dict[str, Any]

UNROUTED: Final = frozenset(("internalMessages", "screenMonitorings"))
"""Arrays of media that no queue distributes: without peer, wrap-up and after-call work."""
HELD: Final = frozenset(("calls", "callbacks", "chats", "emails", "messages", "socialExpressions"))
"""Arrays of media that can be put on hold."""
FAILING: Final = frozenset(("calls", "emails", "messages"))
"""Arrays of media whose communications say why they failed."""
PARKED: Final = frozenset(("emails", "messages"))
"""Arrays of media that can be parked."""
WITHOUT_TERMINATED: Final = frozenset(("emails", "messages", *UNROUTED))
"""Arrays of media whose last state is `disconnected`."""

_DIRECTED = frozenset(("calls", "callbacks", "emails", "messages"))
_ADDRESSED = frozenset(("calls", "cobrowsesessions", "screenshares", "videos"))
_PROVIDERS = {"calls": "Edge", "callbacks": "PureCloud Callback", "messages": "PureCloud Messaging"}
_MESSAGE_TYPES = ("webmessaging", "webmessaging", "sms", "whatsapp", "open", "apple")
_NAMES = ("Mara Example", "Jonas Sample", "Zoë Muster", "Ada Placeholder", "Li Specimen", "Renée O'Test")
_SKILLS = ("billing", "english", "retention", "claims")

_encode = msgspec.json.Encoder().encode
_QUEUE_MEDIA_SETTINGS = msgspec.Raw(
    _encode(
        {
            "alertingTimeoutSeconds": 20,
            "autoAnswerAlertToneSeconds": 5.0,
            "enableAutoAnswer": False,
        }
    )
)
_EMPTY = msgspec.Raw(b"{}")


@lru_cache(maxsize=4_096)
def _second(s: int) -> str:
    return f"{datetime.fromtimestamp(s, UTC):%Y-%m-%dT%H:%M:%S}."


def iso(ms: int) -> str:
    """A time in epoch milliseconds as Genesys Cloud writes it."""
    return f"{_second(ms // 1_000)}{ms % 1_000:03d}Z"


def uuid(chance: random.Random) -> str:
    """A random id in the form of a UUID."""
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def make_customer(chance: random.Random, now_ms: int) -> Json:
    """A customer, who calls, writes or is called."""
    name, number = _person(chance)
    attributes = {
        "context.firstName": name.split()[0],
        "context.email": f"{name.split()[0].lower()}@example.test",
        "context.phoneNumber": number,
        "context.customerNumber": str(chance.randrange(10**8)),
        "tier": chance.choice(("gold", "silver", "none")),
    }
    return {
        "id": uuid(chance),
        "connectedTime": iso(now_ms),
        "name": name,
        "externalContactId": uuid(chance),
        "queue": _EMPTY,
        "purpose": "customer",
        "address": number,
        "wrapupRequired": False,
        "wrapupExpected": False,
        "attributes": msgspec.Raw(_encode(attributes)),
        "mediaRoles": ["full"],
        "additionalProperties": _EMPTY,
    }


def make_acd(chance: random.Random, now_ms: int, queue_id: str) -> Json:
    """A queue as a participant, in which the customer waits."""
    return {
        "id": uuid(chance),
        "connectedTime": iso(now_ms),
        "name": "Invoices and payments",
        "queueId": queue_id,
        "purpose": "acd",
        "wrapupRequired": False,
        "wrapupExpected": False,
        "conversationRoutingData": _make_routing(chance, queue_id),
        "additionalProperties": _EMPTY,
    }


def make_agent(chance: random.Random, user_id: str, queue_id: str | None) -> Json:
    """An agent; `queue_id` is None if no queue distributes the conversation."""
    name, number = _person(chance)
    participant = {
        "id": uuid(chance),
        "name": name,
        "userId": user_id,
        "purpose": "agent",
        "address": number,
        "alertingTimeoutMs": 20_000,
        "wrapupRequired": queue_id is not None,
        "wrapupExpected": queue_id is not None,
        "attributes": _EMPTY,
        "additionalProperties": _EMPTY,
    }
    if queue_id is None:
        return participant | {"queue": _EMPTY, "groupId": None}
    return participant | {
        "queueId": queue_id,
        "teamId": uuid(chance) if chance.random() < 0.5 else None,
        "wrapupPrompt": "optional",
        "wrapupTimeoutMs": 60_000,
    }


def add_communication(chance: random.Random, participant: Json, array: str, state: str) -> Json:
    """Add a communication in its first state to a participant; returns it."""
    leg: Json = {
        "id": uuid(chance),
        "state": state,
        "initialState": state,
        "provider": _PROVIDERS.get(array, "PureCloud"),
    }
    if chance.random() < 0.2:
        leg |= {"disconnectType": None, "disconnectedTime": None}
    if array in HELD:
        leg["held"] = False
    if array in _DIRECTED:
        leg["direction"] = "inbound"
    if array not in UNROUTED:
        routed = participant["purpose"] == "agent" and array != "cobrowsesessions"
        leg |= {"peerId": None, "afterCallWorkRequired": routed}
        if routed:
            leg["scriptId"] = uuid(chance)
        if routed and array != "socialExpressions":
            leg["queueMediaSettings"] = _QUEUE_MEDIA_SETTINGS
    if array in _ADDRESSED:
        leg["self"] = _address(participant)
    leg |= _specific(chance, participant, array)
    leg["additionalProperties"] = _EMPTY
    participant.setdefault(array, []).append(leg)
    return leg


def _specific(chance: random.Random, participant: Json, array: str) -> Json:
    match array:
        case "calls":
            return {
                "muted": False,
                "confined": False,
                "recording": True,
                "recordingState": "active",
                "securePause": False,
                "recordersState": _EMPTY,
            }
        case "messages":
            return {
                "type": chance.choice(_MESSAGE_TYPES),
                "recipientCountry": "US",
                "fromAddress": _address(participant),
                "messages": [{"messageId": uuid(chance), "messageStatus": "received"}],
            }
        case "emails":
            return {"subject": "Question about my last invoice", "messagesSent": 0, "messageId": uuid(chance)}
        case "callbacks":
            return {"callbackNumbers": ["+15550134"], "callbackUserName": participant["name"], "skipEnabled": True}
        case "chats":
            return {"roomId": f"{uuid(chance)}@conference.example.test", "avatarImageUrl": None}
        case "screenshares" | "videos":
            return {"context": f"{uuid(chance)}@conference.example.test", "peerCount": 1}
        case "socialExpressions":
            return {"socialMediaId": uuid(chance), "socialMediaHub": "hub", "previewText": "Can anybody help me?"}
        case "internalMessages":
            return {"targetUserId": uuid(chance), "messages": [{"messageId": uuid(chance)}]}
        case "screenMonitorings":
            return {"screenMonitoringId": uuid(chance), "monitoringType": "AgentLevel", "count": 1}
        case _:
            return {}


def _person(chance: random.Random) -> tuple[str, str]:
    return chance.choice(_NAMES), f"tel:+1555{chance.randrange(10**7):07d}"


def _address(participant: Json) -> msgspec.Raw:
    name, address = participant["name"], participant.get("address")
    return msgspec.Raw(_encode({"name": name, "addressNormalized": address, "addressRaw": address}))


def _make_routing(chance: random.Random, queue_id: str) -> msgspec.Raw:
    routing = {
        "queue": {"id": queue_id} if chance.random() < 0.7 else {},
        "language": {},
        "priority": chance.randrange(5),
        "skills": [{"id": uuid(chance), "name": chance.choice(_SKILLS)}],
        "scoredAgents": [{"agent": {"id": uuid(chance)}, "score": chance.randrange(100)}],
    }
    return msgspec.Raw(_encode(routing))
