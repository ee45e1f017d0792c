"""Match communications of the flat shape, which have no id, with a participant's nested ones.

Matching is done at each fold, never on arrival, so it depends on what is known and not on the order of records.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from consumer.core.timeline import union
from schemas.state import CommunicationDetails, CommunicationState, Observation, Standing


class Match(Struct, frozen=True, gc=False):
    """Under which communication id a flat communication counts. A nested one always counts under its own."""

    standing: Standing
    effective_id: str | None
    """None if ambiguous, and for one that stands alone without a co-browse session."""


Timelines = dict[str | None, list[Observation]]
"""The timelines to fold, by effective communication id."""


def match_flat(communications: Sequence[CommunicationState]) -> dict[str | None, Match]:
    """The matches of a participant's flat communications in one medium, by session digest, which identifies them."""
    flat = [communication for communication in communications if communication.communication_id is None]
    if not flat:
        return {}
    nested = _Nested([communication for communication in communications if communication.communication_id is not None])
    return {communication.session_digest: _match(communication, nested) for communication in flat}


def group_joined(
    communications: Sequence[CommunicationState], matches: Mapping[str | None, Match]
) -> dict[str | None, list[CommunicationState]]:
    """The flat communications that joined a nested one, by its id."""
    joined: dict[str | None, list[CommunicationState]] = {}
    for communication in communications:
        if communication.communication_id is None:
            match = matches[communication.session_digest]
            if match.standing == "joined":
                joined.setdefault(match.effective_id, []).append(communication)
    return joined


def own_details(communication: CommunicationState) -> CommunicationDetails:
    """A communication's own details, without those of what joined it: matching must not depend on its own result."""
    return communication.details if communication.own_details is None else communication.own_details


def merge_timelines(
    communications: Sequence[CommunicationState], matches: Mapping[str | None, Match], cycles_max: int
) -> Timelines:
    """A participant's timelines in one medium, as they are folded: that of a communication has what joined it."""
    if not matches:
        return {communication.communication_id: communication.timeline for communication in communications}
    parts: dict[str | None, list[list[Observation]]] = {}
    for communication in communications:
        effective_id = communication.communication_id
        if effective_id is None:
            match = matches[communication.session_digest]
            if match.standing == "ambiguous":
                continue
            effective_id = match.effective_id
        parts.setdefault(effective_id, []).append(communication.timeline)
    return {
        effective_id: timelines[0] if len(timelines) == 1 else union(timelines, cycles_max)
        for effective_id, timelines in parts.items()
    }


class _Nested:
    """A participant's nested communications in one medium, by the co-browse sessions that they ever showed."""

    def __init__(self, communications: list[CommunicationState]) -> None:
        self.all = communications
        self.by_session: dict[str, list[CommunicationState]] = {}
        self.without_session: list[CommunicationState] = []
        for communication in communications:
            newest = own_details(communication).cobrowse_session_digest
            if newest is None:
                self.without_session.append(communication)
                continue
            for digest in (newest, *communication.other_session_digests):
                self.by_session.setdefault(digest, []).append(communication)


def _match(flat: CommunicationState, nested: _Nested) -> Match:
    candidates = nested.all
    if flat.session_digest is not None:
        candidates = nested.by_session.get(flat.session_digest) or nested.without_session
    match candidates:
        case []:
            return Match("alone", flat.session_digest)
        case [only]:
            return Match("joined", only.communication_id)
        case _:
            return Match("ambiguous", None)
