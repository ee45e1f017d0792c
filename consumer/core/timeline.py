"""The timeline of one communication: the observations kept of it, and the fold that turns them into transitions.

1. At most one observation per (rank, state, cycle) is kept, the least (class, time) ever seen. As that is a minimum,
   neither the order of arrival nor repetition matters.
2. Of the park cycles the first and the latest are kept, `cycles_max` in all. Of the dropped ones only what the latest
   resumed one resumed to is kept. It is no transition; it dates when the state before the next park was entered, so
   that dropping a cycle changes nothing that follows it.
3. A timeline is kept in fold order. Lists and observations are never changed: an unchanged timeline is the same
   object.
"""

from collections.abc import Sequence
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.lifecycle import BEFORE, BEFORE_ORDER, PARKED
from schemas.state import Observation, TimeClass

_FEW = 8  # observations up to which a search is faster than an index
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


def merge(
    timeline: list[Observation], observations: Sequence[Observation], snapshot_time: str, cycles_max: int
) -> list[Observation]:
    """Merge the observations of a snapshot into a timeline; the same object if nothing changed.

    An observation of class `snapshot` may have an empty time, which stands for `snapshot_time`.
    """
    result = timeline
    slots = _index_slots(timeline) if len(observations) > _FEW else None
    for observation in observations:
        if slots is None and observation in result:
            continue
        end = len(result)
        index = _find_slot(result, observation) if slots is None else slots.setdefault(_slot(observation), end)
        dated = observation if observation.time else replace(observation, time=snapshot_time)
        if index < end and _certainty(result[index]) <= _certainty(dated):
            continue
        if result is timeline:
            result = timeline.copy()
        if index == end:
            result.append(dated)
        else:
            result[index] = dated
    if result is timeline:
        return timeline
    result = _cap(result, cycles_max)
    if len(result) > 1:
        result.sort(key=_fold_order)
    return timeline if result == timeline else result


def union(timelines: list[list[Observation]], cycles_max: int) -> list[Observation]:
    """Merge the timelines of what counts as one communication."""
    first, *others = timelines
    return merge(first, list(chain.from_iterable(others)), "", cycles_max)


def fold(timeline: list[Observation]) -> list[Entry]:
    """Fold a timeline into its transitions, with corrected times.

    The time of a snapshot is only an upper bound: it is lowered to the next time of another class. Then times are
    made non-decreasing: if two clocks disagree, a duration becomes zero and no state is lost.
    """
    if not timeline:
        return []
    entries: list[Entry] = []
    state: str | None = None
    since = latest = cycle = ""
    after_gap = False
    for observation, time in zip(timeline, _lower_times(timeline), strict=True):
        latest = max(latest, time)
        entered = observation.state
        if entered == PARKED:
            cycle = observation.cycle
        elif observation.cycle and observation.cycle != cycle:  # its park was dropped
            after_gap = True
            if entered == state:
                since = latest
            continue
        if entered != state:
            entries.append(
                Entry(
                    from_state=state,
                    to_state=entered,
                    rank=observation.rank,
                    cycle=observation.cycle,
                    time=latest,
                    time_class=observation.time_class,
                    since=since,
                )
            )
            state, since = entered, latest
        elif after_gap:
            since = latest
        after_gap = False
    return entries


def _lower_times(timeline: list[Observation]) -> list[str]:
    """The times of a timeline, those of snapshots lowered to the next time of another class."""
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


def _slot(observation: Observation) -> tuple[int, str, str]:
    """What a timeline keeps at most one observation of."""
    return observation.rank, observation.state, observation.cycle


def _index_slots(timeline: list[Observation]) -> dict[tuple[int, str, str], int]:
    return {_slot(observation): index for index, observation in enumerate(timeline)}


def _find_slot(timeline: list[Observation], observation: Observation) -> int:
    """The index of the observation in the same slot; the length of the timeline if there is none."""
    for index, known in enumerate(timeline):
        if known.state == observation.state and known.rank == observation.rank and known.cycle == observation.cycle:
            return index
    return len(timeline)


def _certainty(observation: Observation) -> tuple[int, str]:
    return TIME_CLASS_ORDER[observation.time_class], observation.time


def _fold_order(observation: Observation) -> tuple[int, str, bool, str, int, str]:
    unparked = bool(observation.cycle) and observation.state != PARKED
    among_equals = BEFORE_ORDER[observation.state] if observation.rank == BEFORE else 0
    return observation.rank, observation.cycle, unparked, observation.time, among_equals, observation.state


def _cap(timeline: list[Observation], cycles_max: int) -> list[Observation]:
    """Drop park cycles beyond `cycles_max` (invariant 2)."""
    if len(timeline) <= cycles_max:
        return timeline
    cycles = sorted({observation.cycle for observation in timeline if observation.cycle})
    if len(cycles) <= cycles_max:
        return timeline
    kept = {"", cycles[0], *cycles[len(cycles) - cycles_max + 1 :]}
    resumes = [observation for observation in timeline if observation.cycle not in kept and observation.state != PARKED]
    latest_resumed = max([observation.cycle for observation in resumes], default="")
    return [
        observation
        for observation in timeline
        if observation.cycle in kept or (observation.cycle == latest_resumed and observation.state != PARKED)
    ]
