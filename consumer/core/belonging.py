"""Where a communication of the flat shape belongs. It has no id there, so the answer depends on its neighbours.

Decided anew at each fold, never on arrival: the answer is a function of what is known, not of its order.
"""

from collections.abc import Sequence

from msgspec import Struct

from consumer.core.timeline import union
from schemas.state import CommunicationDetails, CommunicationState, Observation, Standing


class Place(Struct, frozen=True, gc=False):
    """Where a flat communication counts. A nested one has no place: it counts under its own id."""

    standing: Standing
    counted_as: str | None
    """The communication id it counts under, None also for the only flat communication of its medium."""


Timelines = dict[str | None, list[Observation]]
"""What is folded, by the communication id under which it counts."""


def places(communications: Sequence[CommunicationState]) -> dict[str | None, Place]:
    """The places of a participant's flat communications in one medium, by what tells them apart: the session digest."""
    flat = [each for each in communications if each.communication_id is None]
    if not flat:
        return {}
    nested = _Nested([each for each in communications if each.communication_id is not None])
    return {each.session_digest: _flat_place(each, nested) for each in flat}


def joined(
    communications: Sequence[CommunicationState], placed: dict[str | None, Place]
) -> dict[str | None, list[CommunicationState]]:
    """The flat communications that joined a nested one, by its id."""
    found: dict[str | None, list[CommunicationState]] = {}
    for each in communications:
        if each.communication_id is None and (place := placed[each.session_digest]).standing == "joined":
            found.setdefault(place.counted_as, []).append(each)
    return found


def own_details(communication: CommunicationState) -> CommunicationDetails:
    """What a communication showed itself: where another belongs must not depend on what that one shows."""
    return communication.details if communication.own_details is None else communication.own_details


def timelines(
    communications: Sequence[CommunicationState], placed: dict[str | None, Place], cycles_max: int
) -> Timelines:
    """What is folded of a participant's communications in one medium, given the places of the flat ones."""
    if not placed:
        return {each.communication_id: each.timeline for each in communications}
    parts: dict[str | None, list[list[Observation]]] = {}
    for each in communications:
        if each.communication_id is not None:
            parts.setdefault(each.communication_id, []).append(each.timeline)
        elif (place := placed[each.session_digest]).standing != "ambiguous":
            parts.setdefault(place.counted_as, []).append(each.timeline)
    return {counted_as: part[0] if len(part) == 1 else union(part, cycles_max) for counted_as, part in parts.items()}


class _Nested:
    """A participant's nested communications in one medium, by the co-browse sessions that they have ever shown."""

    def __init__(self, communications: list[CommunicationState]) -> None:
        self.all = communications
        self.by_session: dict[str, list[CommunicationState]] = {}
        self.without_session: list[CommunicationState] = []
        for each in communications:
            newest = own_details(each).cobrowse_session_digest
            if newest is None:
                self.without_session.append(each)
                continue
            for digest in (newest, *each.other_session_digests):
                self.by_session.setdefault(digest, []).append(each)


def _flat_place(flat: CommunicationState, nested: _Nested) -> Place:
    candidates = nested.all
    if flat.session_digest is not None:
        candidates = nested.by_session.get(flat.session_digest) or nested.without_session
    match candidates:
        case []:
            return Place("alone", flat.session_digest)
        case [only]:
            return Place("joined", only.communication_id)
        case _:
            return Place("ambiguous", None)
