"""Where a communication of the flat shape belongs. It has no id there, so the answer depends on its neighbours.

Decided anew at each fold, never on arrival: the answer is a function of what is known, not of its order.
"""

from msgspec import Struct

from consumer.core.timeline import union
from schemas.state import Observation, Standing


class Leg(Struct, frozen=True, gc=False):
    """One stored communication of a participant, as far as belonging depends on it."""

    communication_id: str | None
    session_digest: str | None
    shown_digest: str | None
    """The co-browse session that a nested communication has shown."""
    timeline: list[Observation]


class Place(Struct, frozen=True, gc=False):
    """Where a flat leg counts. A nested one has no place: it counts under its own id."""

    standing: Standing
    counted_as: str | None
    """The communication id it counts under, None also for the only flat communication of its medium."""


Timelines = dict[str | None, list[Observation]]
"""What is folded, by the communication id under which it counts."""


def places(legs: list[Leg]) -> dict[str | None, Place]:
    """The places of a participant's flat legs in one medium, by what tells them apart: their session digest."""
    flat = [leg for leg in legs if leg.communication_id is None]
    if not flat:
        return {}
    nested = [leg for leg in legs if leg.communication_id is not None]
    return {leg.session_digest: _flat_place(leg, nested) for leg in flat}


def timelines(legs: list[Leg], placed: dict[str | None, Place], cycles_max: int) -> Timelines:
    """What is folded of a participant's communications in one medium, given the places of the flat ones."""
    if not placed:
        return {leg.communication_id: leg.timeline for leg in legs}
    parts: dict[str | None, list[list[Observation]]] = {}
    for leg in legs:
        if leg.communication_id is not None:
            parts.setdefault(leg.communication_id, []).append(leg.timeline)
        elif (place := placed[leg.session_digest]).standing != "ambiguous":
            parts.setdefault(place.counted_as, []).append(leg.timeline)
    return {counted_as: part[0] if len(part) == 1 else union(part, cycles_max) for counted_as, part in parts.items()}


def _flat_place(flat: Leg, nested: list[Leg]) -> Place:
    candidates = nested
    if flat.session_digest is not None:
        candidates = [leg for leg in nested if leg.shown_digest == flat.session_digest]
        candidates = candidates or [leg for leg in nested if leg.shown_digest is None]
    match candidates:
        case []:
            return Place("alone", flat.session_digest)
        case [only]:
            return Place("joined", only.communication_id)
        case _:
            return Place("ambiguous", None)
