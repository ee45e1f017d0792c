"""View a conversation's state as communications, each with its state and standing transitions, now or at a past time.

A past time is an event time: the view shows what is known now about that moment, late records included.
"""

from collections.abc import Iterator

from consumer.core.lifecycle import LIVE
from consumer.core.matching import match_flat, merge_timelines
from consumer.core.refold import Change
from consumer.core.timeline import Entry, fold
from consumer.core.transitions import derive
from schemas.query import CommunicationView, StandingTransition
from schemas.state import (
    CommunicationDetails,
    CommunicationState,
    ConversationState,
    Media,
    Observation,
    ParticipantState,
)

_UNUSED = CommunicationDetails()
"""They go into the context of transitions, and there is none in a view."""


def communications(state: ConversationState, cycles_max: int, as_of: str | None = None) -> list[CommunicationView]:
    """Every communication that had begun by `as_of`, a published time, sorted by participant, media and id.

    An ambiguous entry of the flat shape belongs to no communication and is left out. `cycles_max` is the rules'
    `park_cycles_max`.
    """
    return [
        view
        for participant in state.participants
        for media, stored in _group_by_media(participant).items()
        for view in _view_media(state, participant, media, stored, cycles_max, as_of)
    ]


def _group_by_media(participant: ParticipantState) -> dict[Media, list[CommunicationState]]:
    grouped: dict[Media, list[CommunicationState]] = {}
    for communication in participant.communications:
        grouped.setdefault(communication.media, []).append(communication)
    return grouped


def _view_media(
    state: ConversationState,
    participant: ParticipantState,
    media: Media,
    stored: list[CommunicationState],
    cycles_max: int,
    as_of: str | None,
) -> Iterator[CommunicationView]:
    disconnect_types: dict[str | None, str | None] = {}
    for communication in stored:
        if communication.standing in {None, "alone"}:
            digest = communication.session_digest if communication.standing == "alone" else None
            disconnect_types[communication.communication_id or digest] = communication.details.disconnect_type
    timelines = merge_timelines(stored, match_flat(stored), cycles_max)
    for communication_id in sorted(timelines, key=lambda key: key or ""):
        timeline = timelines[communication_id]
        entries = fold(timeline)
        begun = [entry for entry in entries if as_of is None or entry.time <= as_of]
        if not begun:
            continue
        live = _is_live(timeline, entries, begun)
        details, last = participant.details, begun[-1]
        yield CommunicationView(
            participant_id=participant.participant_id,
            media=media,
            communication_id=communication_id,
            purpose=details.purpose,
            user_id=details.user_id,
            queue_id=details.queue_id,
            state=last.to_state,
            state_time=last.time,
            time_class=last.time_class,
            live=live,
            disconnect_type=None if live else disconnect_types.get(communication_id),
            transitions=_derive_transitions(state, participant, media, communication_id, begun),
        )


def _is_live(timeline: list[Observation], entries: list[Entry], begun: list[Entry]) -> bool:
    """Whether it has not ended, by its last observation: that may have a higher rank than the entry into its state."""
    rank = timeline[-1].rank if len(begun) == len(entries) else begun[-1].rank
    return rank <= LIVE


def _derive_transitions(
    state: ConversationState,
    participant: ParticipantState,
    media: Media,
    communication_id: str | None,
    entries: list[Entry],
) -> list[StandingTransition]:
    """The transitions, with the ids with which they were published."""
    change = Change(participant.participant_id, media, communication_id, [], entries, participant.details, _UNUSED)
    return [
        StandingTransition(
            transition.id,
            transition.from_state,
            transition.to_state,
            transition.event_time,
            transition.time_class,
            transition.milliseconds_in_from,
        )
        for transition in derive(state.conversation_id, change, state.source)
    ]
