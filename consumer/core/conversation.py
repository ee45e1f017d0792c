"""Apply a snapshot to the state of a conversation.

1. The state is a function of the set of snapshots applied, whatever their order and number (but for `source`).
2. Its summary derives from its participants' communications and is updated with them.
3. Every snapshot shows the conversation itself, so `snapshot_time` is also the version of its details.
4. Participants are sorted. No argument is changed.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumer.core import lww
from consumer.core.participant import ParticipantMerge
from consumer.core.reasons import Anomaly
from consumer.core.refold import Change
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot
from consumer.core.updates import ParticipantUpdate, combine
from schemas.state import STATE_SCHEMA, ConversationDetails, ConversationState, ParticipantState, Source, Timestamp

_NO_DETAILS: Final = ConversationDetails()

UpdateCache = Mapping[str, ParticipantUpdate]
"""The newest update of a participant, by id; kept only while every value in it is the current one.

A participant that repeats its cached update in a newer snapshot changes nothing but its snapshot time.
"""


class Applied(NamedTuple):
    """A conversation after a snapshot, and what the snapshot changed."""

    state: ConversationState
    """The same object if nothing changed."""
    update_cache: UpdateCache
    is_usable: bool
    """False if the snapshot lists participants and none of them could be used."""
    changes: list[Change]
    anomalies: list[Anomaly]
    """Those of the participants, once per occurrence."""


def empty(snapshot: Snapshot, source: Source) -> ConversationState:
    """The state of a conversation before its first snapshot."""
    return ConversationState(
        schema=STATE_SCHEMA,
        snapshot_time=snapshot.time,
        live=0,
        communications={},
        live_since={},
        conversation_id=snapshot.conversation_id,
        source=source,
    )


def apply(
    state: ConversationState, update_cache: UpdateCache, snapshot: Snapshot, source: Source, rules: Rules
) -> Applied:
    """Apply a snapshot from the record `source`. `update_cache` is the one that was returned with `state`, or empty."""
    changes: list[Change] = []
    anomalies: list[Anomaly] = []
    known = {participant.participant_id: participant for participant in state.participants}
    new_cache = dict(update_cache)
    is_usable, is_changed, is_refolded = not any(snapshot.participants), False, False
    for update in _deduplicate(snapshot.participants):
        anomalies += update.anomalies
        participant_id = update.participant_id
        if participant_id is None:
            continue
        is_usable = True
        before = known.get(participant_id) or ParticipantState(participant_id, "", update.details)
        if update_cache.get(participant_id) is update and snapshot.time > before.snapshot_time:
            known[participant_id] = replace(before, snapshot_time=snapshot.time)
            is_changed = True
            continue
        result = ParticipantMerge(before, snapshot.time, rules.park_cycles_max).apply(update)
        if result.participant is before:
            continue
        known[participant_id] = result.participant
        is_changed, is_refolded = True, is_refolded or result.is_refolded
        changes += result.changes
        anomalies += result.anomalies
        if result.supersedes_all:
            new_cache[participant_id] = update
        else:
            new_cache.pop(participant_id, None)
    details, detail_times = _merge_details(state, snapshot)
    is_changed = is_changed or details is not state.details or detail_times != state.detail_times
    if not is_changed and snapshot.time <= state.snapshot_time:
        return Applied(state, update_cache, is_usable, changes, anomalies)
    participants = list(known.values())
    if len(participants) > len(state.participants):
        participants.sort(key=_participant_id)
    live, communications, live_since = state.live, state.communications, state.live_since
    if is_refolded:
        live, communications, live_since = _summarize(participants)
    new_state = ConversationState(
        schema=state.schema,
        snapshot_time=max(snapshot.time, state.snapshot_time),
        live=live,
        communications=communications,
        live_since=live_since,
        conversation_id=state.conversation_id,
        source=source,
        participants=participants,
        details=details,
        detail_times=detail_times,
    )
    return Applied(new_state, new_cache, is_usable, changes, anomalies)


def _merge_details(
    state: ConversationState, snapshot: Snapshot
) -> tuple[ConversationDetails | None, dict[str, Timestamp]]:
    """The details of the conversation after a snapshot, the same object if none changed, and times of older ones."""
    if state.details is None and snapshot.details is None:
        return None, {}
    known, update = state.details or _NO_DETAILS, snapshot.details or _NO_DETAILS
    merged = lww.merge(known, state.snapshot_time, state.detail_times, update, snapshot.time)
    if merged is None:
        return state.details, state.detail_times
    details, _, detail_times = merged
    return state.details if details == known else details, detail_times


def _deduplicate(participants: Iterable[ParticipantUpdate | None]) -> Iterable[ParticipantUpdate]:
    """The participants of a snapshot, once per id however often it is listed, and all those without an id."""
    updates = [participant for participant in participants if participant is not None]
    if len({update.participant_id for update in updates}) == len(updates):
        return updates
    without_id = [update for update in updates if update.participant_id is None]
    by_id: dict[str, list[ParticipantUpdate]] = {}
    for update in updates:
        if update.participant_id is not None:
            by_id.setdefault(update.participant_id, []).append(update)
    return [*without_id, *[combine(several) if len(several) > 1 else several[0] for several in by_id.values()]]


def _participant_id(participant: ParticipantState) -> str:
    return participant.participant_id


def _summarize(participants: Iterable[ParticipantState]) -> tuple[int, dict[str, dict[str, int]], dict[str, list[str]]]:
    """Count live communications, and all by media and state; list by media when the live ones began."""
    live = 0
    counts: dict[tuple[str, str], int] = {}
    since: dict[str, set[str]] = {}
    for participant in participants:
        for communication in participant.communications:
            if communication.state is None:
                continue
            key = (communication.media, communication.state)
            counts[key] = counts.get(key, 0) + 1
            if communication.live:
                live += 1
                since.setdefault(communication.media, set()).add(communication.began or "")
    by_media: dict[str, dict[str, int]] = {}
    for (media, state), count in sorted(counts.items()):
        by_media.setdefault(media, {})[state] = count
    return live, by_media, {media: sorted(since[media]) for media in sorted(since)}
