"""The story of one conversation: its participants and communications, changed step by step.

Invariants, whatever chance decides:

1. A communication's state moves forward by rank only, except from parked back to connected. No id is used twice.
2. Times that a change writes are the story's clock. `connectedTime` is up to `_CLOUD_CLOCK_MS` ahead of it, since
   it is from Genesys Cloud's own clock, and all other times are from the provider's.
3. Every change of a co-browse session sets its own `providerEventTime` on the legs that changed.
4. Participants and communications are never removed: a snapshot shows all that the conversation ever had.
"""

import random
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from consumer.simulator.cast import (
    FAILING,
    HELD,
    PARKED,
    UNROUTED,
    WITHOUT_TERMINATED,
    Json,
    add_communication,
    iso,
    make_acd,
    make_agent,
    make_customer,
    uuid,
)

_MEDIA = {
    "calls": 38,
    "messages": 30,
    "chats": 7,
    "emails": 8,
    "callbacks": 6,
    "videos": 3,
    "screenshares": 2,
    "socialExpressions": 2,
    "internalMessages": 2,
    "screenMonitorings": 2,
}
_COBROWSED = ("calls", "messages")
_CLOUD_CLOCK_MS = (20, 120)
_LATENCY_MS = (130, 330)
_CONTROL_MS_MIN = 2_500
"""A control change so long after the connect cannot be taken for it: the rules distinguish them beyond 2 s."""
_ATTEMPTS_MAX = 3
_REOPENED_MAX = 1
_WRAPUP_CODES = ("resolved", "follow-up", "wrong-department", "callback-agreed")

_CLEARED: Final = [{"type": "q850", "code": 16, "phrase": "Normal call clearing"}]
_NO_ANSWER: Final = [
    {"type": "q850", "code": 19, "phrase": "No answer from user"},
    {"type": "sip", "code": 480, "phrase": "Temporarily Unavailable"},
]

STEP_S: Final = 16.0
"""About the mean time between two changes of a conversation that is not dormant, before any compression."""


class Change(Struct, frozen=True, gc=False):
    """What has changed in a story, and when its next change is due."""

    array: str
    """The array of the communications that changed; empty if nothing changed and nothing is published."""
    wait_s: float
    """Time until the next change, before any compression."""
    wait_ms_min: int = 0
    """Least time until the next change, in stream time."""
    dormant: bool = False
    """Whether the conversation rests until then, perhaps for hours."""


class Story:
    """A conversation from its first communication to its last wrap-up. The caller sets `now_ms` before every change."""

    def __init__(self, chance: random.Random, now_ms: int) -> None:
        self._chance = chance
        self.now_ms = now_ms
        self.id = uuid(chance)
        self.latency_ms = chance.randint(*_LATENCY_MS)
        """Time from a change to its snapshot; equal for all changes, so that no snapshot overtakes another."""
        self.array = chance.choices(list(_MEDIA), list(_MEDIA.values()))[0]
        self.user_id = uuid(chance)
        self.queue_id = None if self.array in UNROUTED else uuid(chance)
        self.participants: list[Json] = []
        self._transfers: list[Json] = []
        self.divisions = [{"division": {"id": uuid(chance)}, "entities": [{"id": self.user_id}]}]
        self._is_of_rest = self.id[0] in "01"
        """Whether the relay reads bodies of the REST API, which show when a communication was alerted."""

    @property
    def published_ms(self) -> int:
        """When the current snapshot is published."""
        return self.now_ms + self.latency_ms

    def body(self) -> Json:
        """The current snapshot in the nested shape; `id` comes first."""
        body: Json = {"id": self.id, "maxParticipants": 32, "participants": self.participants}
        if self._transfers:
            body["recentTransfers"] = self._transfers[-20:]
        if self.queue_id is not None:
            body["externalTag"] = f"case-{self.id[:8]}"
        return body | {"recordingState": "none", "securePause": False, "divisions": self.divisions}

    def changes(self) -> Iterator[Change]:
        """The changes of the story; each step makes one."""
        if self.queue_id is None:
            yield from self._between_users(self.array)
        else:
            yield from self._with_customer(self.array, self.queue_id)

    def _between_users(self, array: str) -> Iterator[Change]:
        first = "alerting" if array == "internalMessages" else "none"
        legs = []
        for user_id in (self.user_id, uuid(self._chance)):
            participant = self._join(make_agent(self._chance, user_id, None))
            legs.append(add_communication(self._chance, participant, array, first))
        if array == "screenMonitorings":
            self.participants[1]["monitoredParticipantId"] = self.participants[0]["id"]
        yield self._after(array, 1, 8)
        for leg in legs:
            self._connect(leg)
        yield self._after(array, 10, 90)
        kinds = ("client", "peer") if array == "internalMessages" else ("system", "system")
        for leg, kind in zip(legs, kinds, strict=True):
            self._disconnect(leg, kind)
        yield self._after(array, 1, 2)

    def _with_customer(self, array: str, queue_id: str) -> Iterator[Change]:
        self._customer = self._join(make_customer(self._chance, self.now_ms))
        for _ in range(1 + _REOPENED_MAX):
            outbound = array == "calls" and self._chance.random() < 0.15
            yield from self._dial(array, queue_id) if outbound else self._queue(array, queue_id)
            yield from self._talk(array)
            if array == "calls" and self.id[1] == "0":
                yield from self._supervise(array, queue_id)
            if not outbound and self._chance.random() < 0.12:
                yield from self._transfer(array, queue_id)
                yield from self._talk(array)
            if array in _COBROWSED and self._chance.random() < 0.45:
                yield from self._cobrowse()
            yield from self._end(array)
            if array != "messages" or self._chance.random() > 0.35:
                return
            yield Change("", 600 * 48 ** self._chance.random(), dormant=True)

    def _dial(self, array: str, queue_id: str) -> Iterator[Change]:
        """An outbound call: the agent's station first, then the customer."""
        self._agent = self._join(make_agent(self._chance, self.user_id, queue_id))
        self._agent_leg = add_communication(self._chance, self._agent, array, "contacting")
        yield self._after(array, 1, 3)
        self._agent_leg["state"] = "dialing"
        self._leg = add_communication(self._chance, self._customer, array, "dialing")
        self._agent_leg["direction"] = self._leg["direction"] = "outbound"
        yield self._after(array, 3, 20)
        for leg in (self._agent_leg, self._leg):
            self._connect(leg)
        self._agent["connectedTime"] = iso(self.now_ms)
        yield self._after(array, 5, 20)

    def _queue(self, array: str, queue_id: str) -> Iterator[Change]:
        """An inbound conversation, or a callback once it is due: often through the queue, then to an agent."""
        scheduled = array == "callbacks"
        first = "scheduled" if scheduled else "connected"
        self._leg = add_communication(self._chance, self._customer, array, first)
        waiting = [self._leg]
        if scheduled or self._chance.random() < 0.5:
            queue = self._join(make_acd(self._chance, self.now_ms, queue_id))
            waiting.append(add_communication(self._chance, queue, array, first))
        if scheduled:
            due_s = 600 + 7_200 * self._chance.random()
            for leg in waiting:
                leg["callbackScheduledTime"] = iso(self.now_ms + int(due_s * 1_000))
            yield Change(array, due_s, dormant=True)
        for leg in waiting:
            self._connect(leg)
        yield self._after(array, 2, 20)
        yield from self._alert(array, queue_id)
        for queued in waiting[1:]:
            self._disconnect(queued, "transfer")
        yield self._after(array, 5, 20)

    def _alert(self, array: str, queue_id: str) -> Iterator[Change]:
        """Alert agents until one answers. The last change is for the caller to publish."""
        for attempt in range(_ATTEMPTS_MAX):
            self._agent = self._join(make_agent(self._chance, self.user_id, queue_id))
            self._agent_leg = add_communication(self._chance, self._agent, array, "alerting")
            if self._is_of_rest:
                self._agent_leg["startAlertingTime"] = iso(self.now_ms)
            self._agent_leg["peerId"] = self._leg["id"]
            yield self._after(array, 2, 12)
            if attempt == _ATTEMPTS_MAX - 1 or self._chance.random() < 0.78:
                break
            declined = self._chance.random() < 0.5
            self._disconnect(self._agent_leg, "client" if declined else "system")
            if not declined and array in FAILING:
                self._agent_leg["errorInfo"] = {
                    "code": "error.alerting.timeout",
                    "message": f"{self._agent['name']} is away",
                }
            self._agent["endTime"] = iso(self.now_ms)
            yield self._after(array, 1, 8)
            if self._chance.random() < 0.4:
                self.user_id = uuid(self._chance)
        self._connect(self._agent_leg)
        self._agent["connectedTime"] = iso(self.now_ms)

    def _talk(self, array: str) -> Iterator[Change]:
        for _ in range(self._chance.randint(1, 4)):
            if array in PARKED and self._chance.random() < 0.25:
                yield from self._park(array)
            elif array in HELD:
                yield from self._hold(array)
            else:
                self._agent_leg["peerCount"] = self._chance.randint(1, 3)
                yield self._after(array, 10, 60)

    def _park(self, array: str) -> Iterator[Change]:
        park_s = 60 * 100 ** self._chance.random()
        resume = iso(self.now_ms + int(park_s * 1_000))
        self._agent_leg.update(state="parked", parkTime=iso(self.now_ms), resumeTime=resume)
        yield Change(array, park_s, dormant=True)
        self._agent_leg["state"] = "connected"
        yield self._after(array, 5, 40)

    def _hold(self, array: str) -> Iterator[Change]:
        if array == "calls" and self._chance.random() < 0.4:
            self._agent_leg["muted"] = not self._agent_leg["muted"]
            yield self._after(array, 3, 15)
            return
        self._agent_leg.update(held=True, startHoldTime=iso(self.now_ms))
        yield self._after(array, 5, 30)
        self._agent_leg["held"] = False
        yield self._after(array, 5, 40)

    def _supervise(self, array: str, queue_id: str) -> Iterator[Change]:
        """A supervisor listens to the agent, advises them and joins the call."""
        supervisor = self._join(make_agent(self._chance, uuid(self._chance), queue_id))
        leg = add_communication(self._chance, supervisor, array, "connected")
        for role in ("monitored", "coached", "barged"):
            supervisor[f"{role}ParticipantId"] = self._agent["id"]
            yield self._after(array, 2, 20)
        self._disconnect(leg, "client")

    def _transfer(self, array: str, queue_id: str) -> Iterator[Change]:
        """A transfer to another agent, whom the first one has consulted, or without a word; they leave at once."""
        first, attended = self._agent, self.id[2] in "01234567"  # a digit of a random id: one half of them
        self._disconnect(self._agent_leg, "transfer")
        self._agent["endTime"] = iso(self.now_ms)
        self._transfers.append(
            {
                "id": uuid(self._chance),
                "state": "complete",
                "dateIssued": iso(self.now_ms),
                "initiator": {"userId": self.user_id},
                "transferType": "attended" if attended else "unattended",
            }
        )
        yield self._after(array, 1, 4)
        self.user_id = uuid(self._chance)
        self._transfers[-1]["destination"] = {"userId": self.user_id}
        yield from self._alert(array, queue_id)
        if attended:
            first["consultParticipantId"] = self._agent["id"]
        yield self._after(array, 5, 20)

    def _cobrowse(self) -> Iterator[Change]:
        """Sessions beside the conversation: the customer shares, the agent watches."""
        for _ in range(self._chance.randint(1, 2)):
            session = f"{self._chance.randrange(10**9):09d}"
            sharer, viewer = self._session(self._customer, session), self._session(self._agent, session)
            viewer["peerId"], sharer["peerId"] = sharer["id"], viewer["id"]
            yield self._after("cobrowsesessions", 3, 12)
            if self._chance.random() < 0.25:
                yield from self._end_session((sharer, "client"), (viewer, "peer"))
                continue
            for leg in (sharer, viewer):
                self._connect(leg)
            viewer["viewerUrl"] = f"https://viewer.example.test/{session}?token={uuid(self._chance)}"
            yield self._after("cobrowsesessions", 5, 20, _CONTROL_MS_MIN)
            for _ in range(self._chance.randint(1, 4)):
                viewer["controlling"] = [] if viewer["controlling"] else [sharer["id"]]
                viewer["providerEventTime"] = iso(self.now_ms)
                yield self._after("cobrowsesessions", 5, 30)
            by_agent = self._chance.random() < 0.6
            kinds = ("peer", "client") if by_agent else ("client", "peer")
            yield from self._end_session((sharer, kinds[0]), (viewer, kinds[1]))

    def _end_session(self, *legs: tuple[Json, str]) -> Iterator[Change]:
        for leg, kind in legs:
            self._disconnect(leg, kind)
        yield self._after("cobrowsesessions", 0.1, 1)
        for leg, _ in legs:
            leg.update(state="terminated", providerEventTime=iso(self.now_ms))
        yield self._after("cobrowsesessions", 3, 15)

    def _end(self, array: str) -> Iterator[Change]:
        by_agent = self._chance.random() < 0.5
        self._disconnect(self._agent_leg, "client" if by_agent else "peer")
        self._disconnect(self._leg, "peer" if by_agent else "endpoint")
        self._agent_leg["afterCallWork"] = {"state": "pending", "startTime": iso(self.now_ms)}
        self._agent |= {"endTime": iso(self.now_ms), "startAcwTime": iso(self.now_ms)}
        if array in WITHOUT_TERMINATED:
            yield self._after(array, 5, 40)
        else:
            yield self._after(array, 0.05, 0.5)
            for participant in self.participants:
                for leg in participant.get(array, ()):
                    leg["state"] = "terminated"
            yield self._after(array, 5, 40)
        yield from self._wrap_up(array)

    def _wrap_up(self, array: str) -> Iterator[Change]:
        skipped = self._chance.random() < 0.15
        self._agent_leg["afterCallWork"].update(state="skipped" if skipped else "complete", endTime=iso(self.now_ms))
        self._agent["endAcwTime"] = iso(self.now_ms)
        if not skipped:
            wrapup = {
                "code": self._chance.choice(_WRAPUP_CODES),
                "notes": "spoke with the customer about the invoice",
                "durationSeconds": self._chance.randint(2, 90),
                "endTime": iso(self.now_ms),
            }
            self._agent["wrapup"] = self._agent_leg["wrapup"] = wrapup
        yield self._after(array, 1, 2)

    def _after(self, array: str, low_s: float, high_s: float, wait_ms_min: int = 0) -> Change:
        return Change(array, self._chance.uniform(low_s, high_s), wait_ms_min)

    def _join(self, participant: Json) -> Json:
        self.participants.append(participant)
        return participant

    def _connect(self, leg: Json) -> None:
        leg.update(state="connected", connectedTime=iso(self.now_ms + self._chance.randint(*_CLOUD_CLOCK_MS)))
        if "cobrowseSessionId" in leg:
            leg["providerEventTime"] = iso(self.now_ms)

    def _disconnect(self, leg: Json, disconnect_type: str) -> None:
        leg.update(state="disconnected", disconnectType=disconnect_type, disconnectedTime=iso(self.now_ms))
        if "recordersState" in leg:  # a call
            leg["disconnectReasons"] = _NO_ANSWER if disconnect_type == "system" else _CLEARED
        if "cobrowseSessionId" in leg:
            leg.update(providerEventTime=iso(self.now_ms), controlling=[])

    def _session(self, participant: Json, session: str) -> Json:
        leg = add_communication(self._chance, participant, "cobrowsesessions", "alerting")
        leg |= {
            "roomId": f"room-{session}",
            "cobrowseSessionId": session,
            "cobrowseRole": "sharer" if participant["purpose"] == "customer" else "viewer",
            "controlling": [],
            "providerEventTime": iso(self.now_ms),
        }
        return leg
