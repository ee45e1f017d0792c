"""The state of one conversation, and what a snapshot makes of it.

1. The state is a function of the set of snapshots applied, whatever their order and number (but for `source`).
2. Its summary follows from its participants' communications and is brought up to date with them.
3. Participants are sorted. Nothing that was handed in is changed.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from consumer.core.decode import Snapshot
from consumer.core.participant import Change, Update
from consumer.core.rules import Rules
from consumer.core.showing import ShownParticipant, united
from schemas.state import STATE_SCHEMA, ConversationState, ParticipantState, Source

LastShown = Mapping[str, ShownParticipant]
"""By participant id, what its newest snapshot showed, as long as nothing else has a say in what that told.

Whoever shows the same once more, at a newer snapshot, only makes what is known newer.
"""


class Applied(NamedTuple):
    """What applying a snapshot came to."""

    state: ConversationState
    """The same object if nothing changed."""
    last: LastShown
    usable: bool
    """False if participants were shown and none of them could be used."""
    changes: list[Change]


def empty(snapshot: Snapshot, source: Source) -> ConversationState:
    """A conversation of which nothing is known but that it exists."""
    return ConversationState(STATE_SCHEMA, snapshot.time, 0, {}, {}, snapshot.conversation_id, source)


def apply(
    state: ConversationState, last: LastShown, snapshot: Snapshot, source: Source, rules: Rules, notes: list[str]
) -> Applied:
    """The state after a snapshot, which came with the record `source`. `last` came with `state`, or is empty."""
    changes: list[Change] = []
    known = {participant.participant_id: participant for participant in state.participants}
    last_shown = dict(last)
    usable, changed, refolded = not any(snapshot.participants), False, False
    for shown in _each_once(snapshot.participants):
        notes.extend(shown.notes)
        participant_id = shown.participant_id
        if participant_id is None:
            continue
        usable = True
        before = known.get(participant_id) or ParticipantState(participant_id, "", shown.details)
        if last.get(participant_id) is shown and snapshot.time > before.snapshot_time:
            known[participant_id] = replace(before, snapshot_time=snapshot.time)
            changed = True
            continue
        update = Update(before, snapshot.time, rules.park_cycles_max, changes, notes)
        after = update.apply(shown)
        if after is not before:
            known[participant_id] = after
            changed, refolded = True, refolded or update.refolded
            if update.prevails:
                last_shown[participant_id] = shown
            else:
                last_shown.pop(participant_id, None)
    if not changed and snapshot.time <= state.snapshot_time:
        return Applied(state, last, usable, changes)
    participants = list(known.values())
    if len(participants) > len(state.participants):
        participants.sort(key=_participant_id)
    live, communications, live_since = state.live, state.communications, state.live_since
    if refolded:
        live, communications, live_since = _summary(participants)
    newest = max(snapshot.time, state.snapshot_time)
    changed_state = ConversationState(
        state.schema, newest, live, communications, live_since, state.conversation_id, source, participants
    )
    return Applied(changed_state, last_shown, usable, changes)


def _each_once(participants: Iterable[ShownParticipant | None]) -> Iterable[ShownParticipant]:
    """The participants that are shown, each that has an id once, however often it is listed."""
    shown = [each for each in participants if each is not None]
    if len({each.participant_id for each in shown}) == len(shown):
        return shown
    without_id = [each for each in shown if each.participant_id is None]
    listed: dict[str | None, list[ShownParticipant]] = {}
    for each in shown:
        if each.participant_id is not None:
            listed.setdefault(each.participant_id, []).append(each)
    return [*without_id, *[united(several) if len(several) > 1 else several[0] for several in listed.values()]]


def _participant_id(participant: ParticipantState) -> str:
    return participant.participant_id


def _summary(participants: Iterable[ParticipantState]) -> tuple[int, dict[str, dict[str, int]], dict[str, list[str]]]:
    """How many communications are live, how many there are by media and state, and since when they are live."""
    live = 0
    counts: dict[tuple[str, str], int] = {}
    since: dict[str, set[str]] = {}
    for participant in participants:
        for each in participant.communications:
            if each.state is None:
                continue
            place = (each.media, each.state)
            counts[place] = counts.get(place, 0) + 1
            if each.live:
                live += 1
                since.setdefault(each.media, set()).add(each.began or "")
    by_media: dict[str, dict[str, int]] = {}
    for (media, state), count in sorted(counts.items()):
        by_media.setdefault(media, {})[state] = count
    return live, by_media, {media: sorted(since[media]) for media in sorted(since)}
