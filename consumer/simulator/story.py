"""One conversation as it unfolds: its participants, their communications, and a change at a time.

Every change moves the story's clock and gives what Genesys Cloud would publish then: the whole conversation.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

_MEDIA = {
    "calls": 40,
    "messages": 30,
    "chats": 8,
    "emails": 8,
    "callbacks": 5,
    "videos": 3,
    "screenshares": 2,
    "socialExpressions": 2,
    "internalMessages": 1,
    "screenMonitorings": 1,
}
_ENDS_TERMINATED = {"calls", "callbacks", "videos", "screenshares", "chats", "socialExpressions", "cobrowsesessions"}
_UNROUTED = {"internalMessages", "screenMonitorings"}
_QUEUE_SETTINGS = {
    "alertingTimeoutSeconds": 20,
    "autoAnswerAlertToneSeconds": 5.0,
    "manualAnswerAlertToneSeconds": 20.0,
    "enableAutoAnswer": False,
}


def iso(ms: int) -> str:
    """The text Genesys Cloud writes for a time in epoch milliseconds."""
    return f"{datetime.fromtimestamp(ms // 1_000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1_000:03d}Z"


class Story:
    """A conversation from its first alert to its wrap-up."""

    def __init__(self, chance: random.Random, start_ms: int, step_ms: int) -> None:
        self._chance = chance
        self._step_ms = step_ms
        self.now_ms = start_ms
        self.id = self._uuid()
        self.participants: list[Json] = []
        self.array = chance.choices(list(_MEDIA), list(_MEDIA.values()))[0]
        self._customer = self._participant("customer")
        self.user_id = self._uuid()

    def body(self) -> Json:
        """The conversation as it is now, in the nested shape."""
        return {
            "id": self.id,
            "maxParticipants": 32,
            "participants": self.participants,
            "recordingState": "none",
            "securePause": False,
            "divisions": [{"division": {"id": self.user_id}, "entities": []}],
        }

    def changes(self) -> Iterator[str]:
        """Let the story unfold; each step leaves the conversation as published then and names the array that changed."""
        yield from self._reach_agent()
        for reopened in range(2):
            yield from self._talk()
            yield from self._end()
            if reopened or self.array != "messages" or self._chance.random() > 0.3:
                break
            yield from self._reach_agent()

    def _reach_agent(self) -> Iterator[str]:
        scheduled = self.array == "callbacks"
        self._leg = self._communication(self._customer, self.array, "scheduled" if scheduled else "connected")
        yield self._publish(self.array)
        while True:
            self._agent = self._participant("agent")
            self._agent_leg = self._communication(self._agent, self.array, "alerting")
            yield self._publish(self.array)
            if self._chance.random() > 0.2:
                break
            declined = self._chance.random() < 0.5
            self._finish(self._agent_leg, "client" if declined else "system")
            self._agent["endTime"] = iso(self.now_ms)
            yield self._publish(self.array)
        for leg in (self._agent_leg, self._leg):
            if leg["state"] != "connected":
                leg["state"], leg["connectedTime"] = "connected", iso(self.now_ms)
        self._agent["connectedTime"] = iso(self.now_ms)
        yield self._publish(self.array)

    def _talk(self) -> Iterator[str]:
        for _ in range(self._chance.randint(1, 5)):
            if self.array in {"messages", "emails"} and self._chance.random() < 0.3:
                self._agent_leg.update(state="parked", parkTime=iso(self.now_ms), resumeTime=iso(self.now_ms + 3_600_000))
                yield self._publish(self.array)
                self._agent_leg["state"] = "connected"
            elif self.array in {"calls", "messages", "chats", "emails", "callbacks", "socialExpressions"}:
                self._agent_leg["held"] = not self._agent_leg.get("held", False)
            if self.array == "calls":
                self._agent_leg["muted"] = self._chance.random() < 0.3
            yield self._publish(self.array)
        if self.array in {"calls", "messages"} and self._chance.random() < 0.6:
            yield from self._cobrowse()

    def _cobrowse(self) -> Iterator[str]:
        for _ in range(self._chance.randint(1, 2)):
            session = str(self._chance.randrange(10**9)).zfill(9)
            sharer = self._session(self._customer, session, "sharer")
            viewer = self._session(self._agent, session, "viewer")
            viewer["peerId"] = sharer["id"]
            yield self._publish("cobrowsesessions")
            if self._chance.random() < 0.25:
                for leg in (sharer, viewer):
                    self._finish(leg, "client")
                yield self._publish("cobrowsesessions")
                continue
            viewer["viewerUrl"] = f"https://viewer.example.test/{session}?token={self._uuid()}"
            for leg in (sharer, viewer):
                leg.update(state="connected", connectedTime=iso(self.now_ms + 80), providerEventTime=iso(self.now_ms))
            yield self._publish("cobrowsesessions")
            for _ in range(self._chance.randint(1, 4)):
                viewer["controlling"] = [] if viewer["controlling"] else [sharer["id"]]
                for leg in (sharer, viewer):
                    leg["providerEventTime"] = iso(self.now_ms)
                yield self._publish("cobrowsesessions")
            for leg, kind in ((viewer, "client"), (sharer, "peer")):
                self._finish(leg, kind)
            yield self._publish("cobrowsesessions")

    def _end(self) -> Iterator[str]:
        self._finish(self._agent_leg, "client")
        self._finish(self._leg, "peer")
        routed = self.array not in _UNROUTED
        if routed:
            self._agent_leg.update(
                afterCallWorkRequired=True, afterCallWork={"state": "pending", "startTime": iso(self.now_ms)}
            )
        yield self._publish(self.array)
        if self.array in _ENDS_TERMINATED:
            self._agent_leg["state"] = self._leg["state"] = "terminated"
            yield self._publish(self.array)
        if routed:
            self._agent_leg["afterCallWork"].update(state="complete", endTime=iso(self.now_ms))
            self._agent_leg["wrapup"] = {
                "code": self._chance.choice(("resolved", "follow-up", "no-answer")),
                "notes": "spoke with the customer about the invoice",
                "durationSeconds": self._chance.randint(2, 90),
                "endTime": iso(self.now_ms),
            }
            yield self._publish(self.array)

    def _publish(self, array: str) -> str:
        self.now_ms += self._chance.randint(self._step_ms // 2, self._step_ms * 3 // 2)
        return array

    def _finish(self, leg: Json, disconnect_type: str) -> None:
        leg.update(state="disconnected", disconnectType=disconnect_type, disconnectedTime=iso(self.now_ms))
        if "providerEventTime" in leg:
            leg["providerEventTime"] = iso(self.now_ms)

    def _participant(self, purpose: str) -> Json:
        participant: Json = {
            "id": self._uuid(),
            "connectedTime": iso(self.now_ms),
            "name": "Mara Example" if purpose == "customer" else "Agent Smith",
            "purpose": purpose,
            "address": "tel:+15550100",
            "wrapupRequired": purpose == "agent",
            "wrapupExpected": purpose == "agent",
            "attributes": {"context.email": "mara@example.test", "context.phoneNumber": "+15550100", "tier": "gold"},
            "additionalProperties": {},
        }
        if purpose == "agent":
            participant |= {"userId": self.user_id, "queueId": self.user_id[::-1], "wrapupPrompt": "optional"}
            participant["conversationRoutingData"] = {"queue": {}, "language": {}, "priority": 0, "skills": []}
        else:
            participant |= {"externalContactId": self._uuid(), "queue": {}}
        self.participants.append(participant)
        return participant

    def _communication(self, participant: Json, array: str, state: str) -> Json:
        leg: Json = {
            "id": self._uuid(),
            "state": state,
            "initialState": state,
            "provider": "PureCloud Messaging" if array == "messages" else "Edge",
        }
        if state == "connected":
            leg["connectedTime"] = iso(self.now_ms)
        if array not in _UNROUTED:
            leg |= {"scriptId": self.id, "peerId": None}
        if array not in _UNROUTED | {"socialExpressions"}:
            leg["queueMediaSettings"] = _QUEUE_SETTINGS
        if array in {"calls", "callbacks", "emails", "messages"}:
            leg |= {"direction": "inbound", "held": False}
        if array in {"calls", "videos", "screenshares", "cobrowsesessions"}:
            leg["self"] = {"name": participant["name"], "addressNormalized": "+15550100", "addressRaw": "+15550100"}
        if array == "messages":
            leg |= {"type": "webmessaging", "messages": [], "recipientCountry": "US"}
        participant.setdefault(array, []).append(leg)
        return leg

    def _session(self, participant: Json, session: str, role: str) -> Json:
        leg = self._communication(participant, "cobrowsesessions", "alerting")
        leg |= {
            "cobrowseSessionId": session,
            "cobrowseRole": role,
            "controlling": [],
            "providerEventTime": iso(self.now_ms),
            "roomId": f"room-{session}",
        }
        return leg

    def _uuid(self) -> str:
        digits = f"{self._chance.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
