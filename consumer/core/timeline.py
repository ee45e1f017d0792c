"""The timeline of one communication: observations kept, and the fold that turns them into an order of states.

1. At most one observation per (rank, state, cycle), and of it the least (class, time) ever seen. A minimum: neither
   the order of arrival nor repetition matters.
2. Of the park cycles the first and the latest are kept, `cycles_max` in all.
3. A timeline is kept in fold order, and a list is never changed in place: an unchanged timeline is the same object.
"""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.core.lifecycle import BEFORE, BEFORE_ORDER, PARKED
from schemas.state import Observation, TimeClass

TIME_CLASS_ORDER: dict[TimeClass, int] = {"provider": 0, "state": 1, "snapshot": 2}


class Sighting(NamedTuple):
    """What one record says: the communication entered `state` at `time` (published text).

    Where the class is `snapshot` the time may be empty: it is that of the record's snapshot.
    """

    rank: int
    cycle: str
    state: str
    time_class: TimeClass
    time: str


class Entry(NamedTuple):
    """One transition of a folded timeline; `from_state` is None for the first."""

    from_state: str | None
    to_state: str
    rank: int
    cycle: str
    time: str
    time_class: TimeClass


def merged(
    timeline: list[Observation], sightings: Sequence[Sighting], snapshot_time: str, cycles_max: int
) -> list[Observation]:
    """The timeline with the sightings of a snapshot taken in; the same object if they say nothing new."""
    result = timeline
    for rank, cycle, state, time_class, own_time in sightings:
        time = own_time or snapshot_time
        for index, kept in enumerate(result):
            if kept.state == state and kept.rank == rank and kept.cycle == cycle:
                if (TIME_CLASS_ORDER[time_class], time) < (TIME_CLASS_ORDER[kept.time_class], kept.time):
                    result = [*result[:index], Observation(state, rank, time, time_class, cycle), *result[index + 1 :]]
                break
        else:
            result = [*result, Observation(state, rank, time, time_class, cycle)]
    if result is timeline:
        return timeline
    result = sorted(_capped(result, cycles_max), key=_fold_order)
    return timeline if result == timeline else result


def union(timelines: list[list[Observation]], cycles_max: int) -> list[Observation]:
    """Several timelines of what turned out to be one communication."""
    first, *others = timelines
    sightings = [Sighting(o.rank, o.cycle, o.state, o.time_class, o.time) for other in others for o in other]
    return merged(first, sightings, "", cycles_max)


def fold(timeline: list[Observation]) -> list[Entry]:
    """The transitions of a timeline in fold order, their times put right.

    A snapshot's time is only an upper bound: it is lowered to the next better time that follows in the order. Then
    times are made non-decreasing: two clocks that disagree cost a duration of zero rather than a lost state.
    """
    times = [observation.time for observation in timeline]
    bound = None
    for index in range(len(timeline) - 1, -1, -1):
        if timeline[index].time_class != "snapshot":
            bound = times[index]
        elif bound is not None and bound < times[index]:
            times[index] = bound
    entries: list[Entry] = []
    state: str | None = None
    latest = ""
    for observation, time in zip(timeline, times, strict=True):
        latest = max(latest, time)
        if observation.state != state:
            entries.append(
                Entry(state, observation.state, observation.rank, observation.cycle, latest, observation.time_class)
            )
            state = observation.state
    return entries


def _fold_order(observation: Observation) -> tuple[int, str, bool, str, int, str]:
    unparked = bool(observation.cycle) and observation.state != PARKED
    among_equals = BEFORE_ORDER[observation.state] if observation.rank == BEFORE else 0
    return observation.rank, observation.cycle, unparked, observation.time, among_equals, observation.state


def _capped(timeline: list[Observation], cycles_max: int) -> list[Observation]:
    cycles = sorted({observation.cycle for observation in timeline if observation.cycle})
    if len(cycles) <= cycles_max:
        return timeline
    kept = {"", cycles[0], *cycles[len(cycles) - cycles_max + 1 :]}
    return [observation for observation in timeline if observation.cycle in kept]
