"""Fold the communications of a participant in one medium again, after a snapshot changed a timeline in it.

A flat communication may join or leave a nested one by this, so it concerns all communications of the medium at once.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.lifecycle import LIVE
from consumer.core.matching import Match, match_flat, merge_timelines
from consumer.core.reasons import Anomaly
from consumer.core.timeline import Entry, fold
from schemas.state import (
    CommunicationDetails,
    CommunicationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
)

_NO_DETAILS: Final = CommunicationDetails()


class Change(Struct, frozen=True, gc=False):
    """The folded timeline of one communication before and after a snapshot; they differ."""

    participant_id: str
    media: Media
    communication_id: str | None
    before: list[Entry]
    after: list[Entry]
    participant: ParticipantDetails
    """The participant's details after the snapshot."""
    communication: CommunicationDetails
    """The communication's details after the snapshot, or before it if it counts no more."""


class Refolded(Struct, frozen=True, gc=False):
    """A participant's communications after a fold, and what it changed."""

    communications: list[CommunicationState]
    """All media; in the one that was folded the fields that derive from timelines are updated."""
    changes: list[Change]
    """Sorted by communication id."""
    anomalies: list[Anomaly]


def refold(
    media: Media,
    before: ParticipantState,
    communications: list[CommunicationState],
    details: ParticipantDetails,
    cycles_max: int,
) -> Refolded:
    """Compare the folds of `communications` with those of the participant before the snapshot, in one medium."""
    known = [communication for communication in before.communications if communication.media == media]
    updated = [communication for communication in communications if communication.media == media]
    matches = match_flat(updated)
    old = merge_timelines(known, match_flat(known) if matches else {}, cycles_max)
    new = merge_timelines(updated, matches, cycles_max)
    folds = {
        effective_id: fold(new.get(effective_id, []))
        for effective_id in (old.keys() | new.keys() if matches else new)
        if old.get(effective_id) != new.get(effective_id)
    }
    counted = _list_details(known) if matches else {}
    result = communications.copy()
    for index, communication in enumerate(communications):
        if communication.media != media:
            continue
        effective_id = communication.communication_id
        if effective_id is None:
            match = matches[communication.session_digest]
            result[index] = _store_match(communication, match)
            if match.standing != "alone":
                continue
            effective_id = match.effective_id
        if entries := folds.get(effective_id):
            counted[effective_id] = communication.details
            result[index] = _store_fold(result[index], entries, new[effective_id])
    changes = []
    for effective_id in sorted(folds, key=_text):
        entries = fold(old.get(effective_id, []))
        if entries != folds[effective_id]:
            changes.append(
                Change(
                    participant_id=before.participant_id,
                    media=media,
                    communication_id=effective_id,
                    before=entries,
                    after=folds[effective_id],
                    participant=details,
                    communication=counted.get(effective_id) or _NO_DETAILS,
                )
            )
    anomalies: list[Anomaly] = [
        "ambiguous_communication" for match in matches.values() if match.standing == "ambiguous"
    ]
    return Refolded(result, changes, anomalies)


def _store_match(communication: CommunicationState, match: Match) -> CommunicationState:
    """A flat communication with what it joined. Unless it stands alone, it has no state of its own."""
    if match.standing == "alone":
        return replace(communication, standing="alone", joined_to=None)
    return replace(
        communication,
        standing=match.standing,
        joined_to=match.effective_id,
        state=None,
        state_time=None,
        time_class=None,
        began=None,
        live=False,
    )


def _store_fold(
    communication: CommunicationState, entries: list[Entry], timeline: list[Observation]
) -> CommunicationState:
    last = entries[-1]
    return replace(
        communication,
        state=last.to_state,
        state_time=last.time,
        time_class=last.time_class,
        began=entries[0].time,
        live=timeline[-1].rank <= LIVE,
    )


def _list_details(communications: Iterable[CommunicationState]) -> dict[str | None, CommunicationDetails]:
    """The details of communications that did not join another, by the id under which they count."""
    return {
        communication.communication_id or communication.session_digest: communication.details
        for communication in communications
        if communication.standing in {None, "alone"}
    }


def _text(communication_id: str | None) -> str:
    return communication_id or ""
