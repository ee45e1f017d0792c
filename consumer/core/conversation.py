"""The state of one conversation, and what a snapshot changes in it.

1. The state is a function of the set of snapshots applied, whatever their order and number (but for `source`).
2. `state`, `state_time`, `time_class`, `standing` and `joined_to` of a communication, and `live`, follow from the
   timelines and are brought up to date with them.
3. Participants and their communications are sorted; lists of observations are replaced, never changed.
"""

from typing import NamedTuple

from msgspec import Struct

from consumer.core import registers, times
from consumer.core.belonging import Leg, places, timelines
from consumer.core.decode import Snapshot
from consumer.core.lifecycle import LIVE
from consumer.core.registers import Registers
from consumer.core.rules import Rules
from consumer.core.showing import Reading, Showing, of_flat, of_nested, participant_details
from consumer.core.timeline import Entry, fold, merged
from consumer.core.topics import NESTED_ARRAYS
from schemas.inbound import FlatParticipant, Participant
from schemas.state import (
    STATE_SCHEMA,
    CommunicationState,
    ConversationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
    Source,
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
    latest_ms = snapshot.time_ms + rules.future_skew_max_s * 1_000
    reading = Reading(snapshot.time_ms, latest_ms, rules.digest_key, notes)
    snapshot_time = times.text(snapshot.time_ms)
    usable, changed = not snapshot.participants, False
    changes: list[Change] = []
    for shown in snapshot.participants:
        if shown is None:
            continue
        if not shown.id:
            notes.append("participant_without_id")
            continue
        usable = True
        participant, details_changed = _participant(state, shown, snapshot_time)
        showings = _showings(shown, snapshot.medium, reading)
        timelines_changed = _apply_showings(participant, showings, rules, changes, notes)
        changed = changed or details_changed or timelines_changed
    if snapshot_time > state.snapshot_time:
        state.snapshot_time = snapshot_time
        changed = True
    state.live += sum(change.live - change.was_live for change in changes)
    return Applied(usable, changed, changes)


def _participant(
    state: ConversationState, shown: Participant | FlatParticipant, snapshot_time: str
) -> tuple[ParticipantState, bool]:
    details = participant_details(shown)
    for participant in state.participants:
        if participant.participant_id == shown.id:
            kept = Registers(participant.details, participant.snapshot_time, participant.detail_times)
            after = registers.merged(kept, details, snapshot_time)
            participant.details, participant.snapshot_time, participant.detail_times = (
                after.details,
                after.version,
                after.older,
            )
            return participant, after is not kept
    assert shown.id is not None
    participant = ParticipantState(shown.id, snapshot_time, details, communications=[])
    state.participants.append(participant)
    state.participants.sort(key=lambda participant: participant.participant_id)
    return participant, True


def _showings(
    shown: Participant | FlatParticipant, medium: Media | None, reading: Reading
) -> list[tuple[Media, list[Showing]]]:
    if isinstance(shown, FlatParticipant):
        assert medium is not None
        showing = of_flat(shown, medium, reading)
        return [] if showing is None else [(medium, [showing])]
    by_media: list[tuple[Media, list[Showing]]] = []
    for array, media in NESTED_ARRAYS.items():
        communications = getattr(shown, array)
        if communications:
            read = [of_nested(each, reading) for each in communications if each is not None]
            by_media.append((media, [showing for showing in read if showing is not None]))
    return by_media


def _apply_showings(
    participant: ParticipantState,
    by_media: list[tuple[Media, list[Showing]]],
    rules: Rules,
    changes: list[Change],
    notes: list[str],
) -> bool:
    changed = False
    for media, showings in by_media:
        before = _legs(participant, media)
        for showing in showings:
            changed |= _apply_showing(participant, media, showing, rules.park_cycles_max)
        after = _legs(participant, media)
        if before != after:
            _refold(participant, media, before, after, rules.park_cycles_max, changes)
            notes.extend("ambiguous_communication" for place in places(after) if place.standing == "ambiguous")
    return changed


def _apply_showing(participant: ParticipantState, media: Media, showing: Showing, cycles_max: int) -> bool:
    for kept in participant.communications:
        if (
            kept.media == media
            and kept.communication_id == showing.communication_id
            and kept.session_digest == showing.session_digest
        ):
            timeline = merged(kept.timeline, showing.sightings, cycles_max)
            before = Registers(kept.details, kept.version, kept.detail_versions)
            after = registers.merged(before, showing.details, showing.version)
            changed = timeline is not kept.timeline or after is not before
            kept.timeline = timeline
            kept.details, kept.version, kept.detail_versions = after.details, after.version, after.older
            return changed
    added = CommunicationState(
        media,
        showing.details,
        showing.version,
        merged([], showing.sightings, cycles_max),
        showing.communication_id,
        showing.session_digest,
    )
    participant.communications.append(added)
    participant.communications.sort(key=_sort_key)
    return True


def _sort_key(communication: CommunicationState) -> tuple[Media, str, str]:
    return communication.media, communication.communication_id or "", communication.session_digest or ""


def _legs(participant: ParticipantState, media: Media) -> list[Leg]:
    return [
        Leg(each.communication_id, each.session_digest, each.details.cobrowse_session_digest, each.timeline)
        for each in participant.communications
        if each.media == media
    ]


def _refold(
    participant: ParticipantState,
    media: Media,
    before: list[Leg],
    after: list[Leg],
    cycles_max: int,
    changes: list[Change],
) -> None:
    """Compare the folds of a participant's communications in one medium, and bring the stored states up to date."""
    old, new = timelines(before, cycles_max), timelines(after, cycles_max)
    folds = {counted_as: fold(timeline) for counted_as, timeline in new.items()}
    disconnect_types: dict[str | None, str | None] = {}
    stored = [each for each in participant.communications if each.media == media]
    for communication, place in zip(stored, places(after), strict=True):
        communication.standing = place.standing
        communication.joined_to = place.counted_as if place.standing == "joined" else None
        if place.standing in {"joined", "ambiguous"}:
            communication.state = communication.state_time = communication.time_class = None
            continue
        last = folds[place.counted_as][-1]
        communication.state, communication.state_time, communication.time_class = (
            last.to_state,
            last.time,
            last.time_class,
        )
        disconnect_types[place.counted_as] = communication.details.disconnect_type
    for counted_as in sorted(old.keys() | new.keys(), key=lambda counted_as: counted_as or ""):
        entries_before, entries_after = fold(old.get(counted_as, [])), folds.get(counted_as, [])
        was_live, live = _is_live(old.get(counted_as, [])), _is_live(new.get(counted_as, []))
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


def _is_live(timeline: list[Observation]) -> bool:
    return bool(timeline) and timeline[-1].rank <= LIVE
