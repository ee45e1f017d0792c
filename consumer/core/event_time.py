"""When a communication entered its states, by the times that one record shows.

A record shows the provider's event time, the state's own times, and the time of its snapshot. The first plausible one
of them dates the state that is shown, and the others may date states before it that no record showed.
"""

from msgspec import Struct

from consumer.core import timestamps
from consumer.core.lifecycle import ALERTING, BEFORE, CONNECTED, DISCONNECTED, LIVE, PARKED, TERMINATED
from schemas.inbound import WireTime
from schemas.state import Observation, TimeClass

CONTROL_CHANGE_MS = 2_000
"""A provider event this much later than the state's own time was another event, such as a change of control."""


class TimeReader(Struct, gc=False):
    """Reads the wire times of one record."""

    latest: str
    """The latest plausible time, as published."""
    implausible: int = 0
    """How many times were unreadable, before 2010 or after `latest`."""
    newest: str = ""
    """The newest of the plausible times, as published."""

    def read(self, wire: WireTime) -> str:
        """A plausible time as published, else empty: one bad clock never stops or reorders anything else."""
        if wire is None:
            return ""
        time = timestamps.normalize(wire)
        if time is None or time > self.latest:
            if wire != "":
                self.implausible += 1
            return ""
        self.newest = max(self.newest, time)
        return time

    def read_plan(self, wire: WireTime) -> str:
        """The time of a plan, which may be as late as it likes and is no time that something happened at."""
        time = timestamps.normalize(wire) if wire is not None else ""
        if time is None and wire != "":
            self.implausible += 1
        return time or ""


class EventTimes(Struct, frozen=True, gc=False):
    """The plausible times of one communication, as published; empty where it shows none."""

    provider: str
    alerting: str
    connected: str
    disconnected: str
    parked: str


def observe(state: str, rank: int, cycle: str, times: EventTimes) -> tuple[Observation, ...]:
    """What a communication in `state` says of its timeline: that state first, then those that its times imply.

    An empty time stands for the snapshot's.
    """
    time, time_class = _date_entry(state, rank, times)
    observations = [Observation(state, rank, time, time_class, cycle)]
    if times.alerting and state != ALERTING:
        observations.append(Observation(ALERTING, BEFORE, times.alerting, "state"))
    if rank >= LIVE:
        if times.connected and (cycle or state != CONNECTED):
            observations.append(Observation(CONNECTED, LIVE, times.connected, "state"))
        if times.parked:
            observations.append(Observation(PARKED, LIVE, times.parked, "state", times.parked))
        if rank == TERMINATED and times.disconnected:
            observations.append(Observation("disconnected", DISCONNECTED, times.disconnected, "state"))
    return tuple(observations)


def _date_entry(state: str, rank: int, times: EventTimes) -> tuple[str, TimeClass]:
    """When `state` was entered: the provider's time, the state's own, or empty for the snapshot's, an upper bound."""
    own = ""
    if rank >= DISCONNECTED:
        own = times.disconnected
    elif state == PARKED:
        own = times.parked
    elif state == CONNECTED and times.parked <= times.connected:
        own = times.connected
    elif state == ALERTING:
        own = times.alerting
    if times.provider and not (own and _is_control_change(times.provider, own)):
        return times.provider, "provider"
    return (own, "state") if own else ("", "snapshot")


def _is_control_change(provider: str, own: str) -> bool:
    return provider > own and timestamps.to_ms(provider) - timestamps.to_ms(own) > CONTROL_CHANGE_MS
