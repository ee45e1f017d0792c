"""The timeline of one communication: observations kept, and the fold that turns them into an order of states.

1. At most one observation per (rank, state, cycle), and of it the least (class, time) ever seen. A minimum: neither
   the order of arrival nor repetition matters.
2. Of the park cycles the first and the latest are kept, `cycles_max` in all; of those that fell out, what the last
   one that was seen resumed was resumed to. That is no transition: it tells how long the state after it had lasted
   when the next park came, so a cycle that falls out changes nothing of what follows it.
3. A timeline is kept in fold order. Neither a list that was given out nor an observation is ever changed: an
   unchanged timeline is the same object.
"""

from collections.abc import Sequence
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.lifecycle import BEFORE, BEFORE_ORDER, PARKED
from schemas.state import Observation, TimeClass

_FEW = 8
TIME_CLASS_ORDER: dict[TimeClass, int] = {"provider": 0, "state": 1, "snapshot": 2}


class Entry(Struct, frozen=True, gc=False):
    """One transition of a folded timeline; `from_state` is None for the first."""

    from_state: str | None
    to_state: str
    rank: int
    cycle: str
    time: str
    time_class: TimeClass
    since: str
    """When `from_state` was entered last; empty for the first."""


def merged(
    timeline: list[Observation], sightings: Sequence[Observation], snapshot_time: str, cycles_max: int
) -> list[Observation]:
    """The timeline with the sightings of a snapshot taken in; the same object if they say nothing new.

    A sighting is an observation as one record says it. Where its class is `snapshot` its time may be empty: it is
    that of the record's snapshot.
    """
    result = timeline
    indices = _indices(timeline) if len(sightings) > _FEW else None
    for sighting in sightings:
        if indices is None and sighting in result:
            continue
        dated = sighting if sighting.time else replace(sighting, time=snapshot_time)
        index = _index(result, sighting) if indices is None else indices.setdefault(_place(sighting), len(result))
        if index == len(result):
            index = None
        if index is not None and _certainty(result[index]) <= _certainty(dated):
            continue
        if result is timeline:
            result = timeline.copy()
        if index is None:
            result.append(dated)
        else:
            result[index] = dated
    if result is timeline:
        return timeline
    result = _capped(result, cycles_max)
    if len(result) > 1:
        result.sort(key=_fold_order)
    return timeline if result == timeline else result


def union(timelines: list[list[Observation]], cycles_max: int) -> list[Observation]:
    """Several timelines of what turned out to be one communication."""
    first, *others = timelines
    return merged(first, list(chain.from_iterable(others)), "", cycles_max)


def fold(timeline: list[Observation]) -> list[Entry]:
    """The transitions of a timeline in fold order, their times put right.

    A snapshot's time is only an upper bound: it is lowered to the next better time that follows in the order. Then
    times are made non-decreasing: two clocks that disagree cost a duration of zero rather than a lost state.
    """
    if not timeline:
        return []
    entries: list[Entry] = []
    state: str | None = None
    since = latest = cycle = ""
    after_gap = False
    for observation, time in zip(timeline, _lowered(timeline), strict=True):
        latest = max(latest, time)
        entered = observation.state
        if entered == PARKED:
            cycle = observation.cycle
        elif observation.cycle and observation.cycle != cycle:  # its park has fallen out
            after_gap = True
            if entered == state:
                since = latest
            continue
        if entered != state:
            entries.append(
                Entry(state, entered, observation.rank, observation.cycle, latest, observation.time_class, since)
            )
            state, since = entered, latest
        elif after_gap:
            since = latest
        after_gap = False
    return entries


def _lowered(timeline: list[Observation]) -> list[str]:
    """The times of a timeline, those of snapshots lowered to the next better one."""
    times: list[str] = []
    bound = ""
    for observation in reversed(timeline):
        time = observation.time
        if observation.time_class != "snapshot":
            bound = time
        elif bound and bound < time:
            time = bound
        times.append(time)
    times.reverse()
    return times


def _place(observation: Observation) -> tuple[int, str, str]:
    return observation.rank, observation.state, observation.cycle


def _indices(timeline: list[Observation]) -> dict[tuple[int, str, str], int]:
    """The index of each observation by its place; a few are found faster without."""
    return {_place(observation): index for index, observation in enumerate(timeline)}


def _index(timeline: list[Observation], sighting: Observation) -> int | None:
    """The index of the observation of the same (rank, state, cycle), None if there is none."""
    for index, kept in enumerate(timeline):
        if kept.state == sighting.state and kept.rank == sighting.rank and kept.cycle == sighting.cycle:
            return index
    return None


def _certainty(observation: Observation) -> tuple[int, str]:
    return TIME_CLASS_ORDER[observation.time_class], observation.time


def _fold_order(observation: Observation) -> tuple[int, str, bool, str, int, str]:
    unparked = bool(observation.cycle) and observation.state != PARKED
    among_equals = BEFORE_ORDER[observation.state] if observation.rank == BEFORE else 0
    return observation.rank, observation.cycle, unparked, observation.time, among_equals, observation.state


def _capped(timeline: list[Observation], cycles_max: int) -> list[Observation]:
    if len(timeline) <= cycles_max:
        return timeline
    cycles = sorted({observation.cycle for observation in timeline if observation.cycle})
    if len(cycles) <= cycles_max:
        return timeline
    kept = {"", cycles[0], *cycles[len(cycles) - cycles_max + 1 :]}
    resumed = max([each.cycle for each in timeline if each.cycle not in kept and each.state != PARKED], default="")
    return [each for each in timeline if each.cycle in kept or (each.cycle == resumed and each.state != PARKED)]
