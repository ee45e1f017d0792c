"""The state of one conversation, and what a snapshot changes in it.

1. The state is a function of the set of snapshots applied, whatever their order and number (but for `source`).
2. `state`, `state_time`, `time_class`, `standing` and `joined_to` of a communication, and `live`, follow from the
   timelines and are brought up to date with them.
3. Participants and their communications are sorted; lists of observations are replaced, never changed.
"""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from consumer.core import registers, times
from consumer.core.belonging import Leg, places, timelines
from consumer.core.decode import Snapshot
from consumer.core.lifecycle import LIVE
from consumer.core.rules import Rules
from consumer.core.showing import Showing
from consumer.core.timeline import Entry, fold, merged
from schemas.state import (
    STATE_SCHEMA,
    CommunicationDetails,
    CommunicationState,
    ConversationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
    Source,
    Version,
)


class Change(Struct, frozen=True, gc=False):
    """The folded timeline of one communication before and after a snapshot, and whether it was and is live.

    Something of it differs. Live is a communication whose last observation has not ended; of a state that nobody
    knows that may change while the timeline folds to the same entries.
    """

    participant_id: str
    media: Media
    communication_id: str | None
    before: list[Entry]
    after: list[Entry]
    was_live: bool
    live: bool
    participant: ParticipantDetails
    disconnect_type: str | None


class Applied(NamedTuple):
    """What applying a snapshot did."""

    usable: bool
    """False if participants were shown and none of them could be used."""
    changed: bool
    changes: list[Change]


def empty(snapshot: Snapshot, source: Source) -> ConversationState:
    """A conversation of which nothing is known but that it exists."""
    return ConversationState(STATE_SCHEMA, snapshot.conversation_id, times.text(snapshot.time_ms), 0, source)


def apply(state: ConversationState, snapshot: Snapshot, rules: Rules, notes: list[str]) -> Applied:
    """Apply a snapshot to `state`, in place."""
    snapshot_time = times.text(snapshot.time_ms)
    usable, changed = not snapshot.participants, False
    changes: list[Change] = []
    notes.extend([note for shown in snapshot.participants if shown is not None for note in shown.notes])
    known = {participant.participant_id: participant for participant in state.participants}
    for shown in snapshot.participants:
        if shown is None or shown.participant_id is None:
            continue
        usable = True
        participant = known.get(shown.participant_id)
        if participant is None:
            participant = ParticipantState(shown.participant_id, snapshot_time, shown.details, communications=[])
            known[shown.participant_id] = participant
            changed = True
        elif _apply_details(participant, shown.details, snapshot_time):
            changed = True
        for media, showings in shown.showings:
            if _apply_showings(participant, media, showings, snapshot_time, rules.park_cycles_max, changes, notes):
                changed = True
    if len(known) > len(state.participants):
        state.participants = sorted(known.values(), key=_participant_id)
    if snapshot_time > state.snapshot_time:
        state.snapshot_time = snapshot_time
        changed = True
    for change in changes:
        state.live += change.live - change.was_live
    return Applied(usable, changed, changes)


def _participant_id(participant: ParticipantState) -> str:
    return participant.participant_id


def _apply_details(participant: ParticipantState, details: ParticipantDetails, snapshot_time: str) -> bool:
    after = registers.merged(
        participant.details, participant.snapshot_time, participant.detail_times, details, snapshot_time
    )
    if after is not None:
        participant.details, participant.snapshot_time, participant.detail_times = after
    return after is not None


def _apply_showings(
    participant: ParticipantState,
    media: Media,
    showings: tuple[Showing, ...],
    snapshot_time: str,
    cycles_max: int,
    changes: list[Change],
    notes: list[str],
) -> bool:
    """Apply what is shown of a participant's communications in one medium; returns whether anything changed."""
    changed = False
    before: list[Leg] | None = None
    stored = {
        (each.communication_id, each.session_digest): each for each in participant.communications if each.media == media
    }
    known = len(stored)
    for showing in showings:
        version = Version(showing.rank, showing.cycle, showing.own_time, snapshot_time)
        kept = stored.get((showing.communication_id, showing.session_digest))
        if kept is None:
            before = _legs(stored.values()) if before is None else before
            stored[showing.communication_id, showing.session_digest] = _new(media, showing, version, cycles_max)
            continue
        timeline = merged(kept.timeline, showing.sightings, snapshot_time, cycles_max)
        after = registers.merged(kept.details, kept.version, kept.detail_versions, showing.details, version)
        if timeline is not kept.timeline or (after is not None and _shows_other_session(after[0], kept.details)):
            before = _legs(stored.values()) if before is None else before
            kept.timeline = timeline
            changed = True
        if after is not None:
            kept.details, kept.version, kept.detail_versions = after
            changed = True
    if len(stored) > known:
        participant.communications.extend(list(stored.values())[known:])
        participant.communications.sort(key=_sort_key)
        changed = True
    if before is not None:
        _refold(participant, media, list(stored.values()), before, cycles_max, changes, notes)
    return changed


def _new(media: Media, showing: Showing, version: Version, cycles_max: int) -> CommunicationState:
    timeline = merged([], showing.sightings, version.snapshot_time, cycles_max)
    return CommunicationState(
        media, showing.details, version, timeline, showing.communication_id, showing.session_digest
    )


def _sort_key(communication: CommunicationState) -> tuple[Media, str, str]:
    return communication.media, communication.communication_id or "", communication.session_digest or ""


def _shows_other_session(details: CommunicationDetails, before: CommunicationDetails) -> bool:
    return details.cobrowse_session_digest != before.cobrowse_session_digest


def _legs(communications: Iterable[CommunicationState]) -> list[Leg]:
    return [
        Leg(each.communication_id, each.session_digest, each.details.cobrowse_session_digest, each.timeline)
        for each in communications
    ]


def _refold(
    participant: ParticipantState,
    media: Media,
    communications: list[CommunicationState],
    before: list[Leg],
    cycles_max: int,
    changes: list[Change],
    notes: list[str],
) -> None:
    """Compare the folds of a participant's communications in one medium, and bring the stored states up to date."""
    after = _legs(communications)
    placed = places(after)
    old, new = timelines(before, places(before), cycles_max), timelines(after, placed, cycles_max)
    folds: dict[str | None, list[Entry]] = {}
    for counted_as in old.keys() | new.keys():
        if old.get(counted_as) != new.get(counted_as):
            folds[counted_as] = fold(new.get(counted_as, []))
    disconnect_types: dict[str | None, str | None] = {}
    for communication in communications:
        counted_as = communication.communication_id
        if counted_as is None:
            place = placed[communication.session_digest]
            counted_as = place.counted_as
            communication.standing = place.standing
            communication.joined_to = counted_as if place.standing == "joined" else None
            if place.standing == "ambiguous":
                notes.append("ambiguous_communication")
            if place.standing != "alone":
                communication.state = communication.state_time = communication.time_class = None
                continue
        if folded := folds.get(counted_as):
            last = folded[-1]
            communication.state = last.to_state
            communication.state_time = last.time
            communication.time_class = last.time_class
            disconnect_types[counted_as] = communication.details.disconnect_type
    for counted_as in sorted(folds, key=_text):
        timeline_before, timeline_after = old.get(counted_as, []), new.get(counted_as, [])
        entries_before, entries_after = fold(timeline_before), folds[counted_as]
        was_live, live = _is_live(timeline_before), _is_live(timeline_after)
        if entries_before != entries_after or was_live != live:
            changes.append(
                Change(
                    participant.participant_id,
                    media,
                    counted_as,
                    entries_before,
                    entries_after,
                    was_live,
                    live,
                    participant.details,
                    disconnect_types.get(counted_as),
                )
            )


def _text(communication_id: str | None) -> str:
    return communication_id or ""


def _is_live(timeline: list[Observation]) -> bool:
    return bool(timeline) and timeline[-1].rank <= LIVE
