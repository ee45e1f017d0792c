"""A conversation's state as people ask for it: each communication with its standing transitions, now or at a time.

A past time is one of events, not of knowledge: the answer is what is known now of that moment, late news included.
"""

from collections.abc import Iterator

from consumer.core.belonging import places, timelines
from consumer.core.lifecycle import LIVE
from consumer.core.participant import Change
from consumer.core.timeline import Entry, fold
from consumer.core.transitions import operations
from schemas.query import CommunicationView, StandingTransition
from schemas.state import CommunicationState, ConversationState, Media, Observation, ParticipantState


def communications(state: ConversationState, cycles_max: int, as_of: str | None = None) -> list[CommunicationView]:
    """Every communication that had begun by `as_of`, a published time, sorted by participant, media and id.

    What an ambiguous entry of the flat shape says counts nowhere, so it is not shown. `cycles_max` is the rules'
    `park_cycles_max`.
    """
    return [
        view
        for participant in state.participants
        for media, stored in _by_media(participant)
        for view in _of_media(state, participant, media, stored, cycles_max, as_of)
    ]


def _by_media(participant: ParticipantState) -> Iterator[tuple[Media, list[CommunicationState]]]:
    grouped: dict[Media, list[CommunicationState]] = {}
    for communication in participant.communications:
        grouped.setdefault(communication.media, []).append(communication)
    yield from grouped.items()


def _of_media(
    state: ConversationState,
    participant: ParticipantState,
    media: Media,
    stored: list[CommunicationState],
    cycles_max: int,
    as_of: str | None,
) -> Iterator[CommunicationView]:
    types = {
        (each.communication_id or (each.session_digest if each.standing == "alone" else None)): (
            each.details.disconnect_type
        )
        for each in stored
        if each.standing in {None, "alone"}
    }
    folded = timelines(stored, places(stored), cycles_max)
    for communication_id in sorted(folded, key=lambda each: each or ""):
        timeline = folded[communication_id]
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
            disconnect_type=None if live else types.get(communication_id),
            transitions=_standing(state, participant, media, communication_id, begun),
        )


def _is_live(timeline: list[Observation], entries: list[Entry], begun: list[Entry]) -> bool:
    """By its last observation, which may say more of the last state than the entry into it."""
    rank = timeline[-1].rank if len(begun) == len(entries) else begun[-1].rank
    return rank <= LIVE


def _standing(
    state: ConversationState,
    participant: ParticipantState,
    media: Media,
    communication_id: str | None,
    entries: list[Entry],
) -> list[StandingTransition]:
    """The transitions under the ids under which they were published."""
    change = Change(participant.participant_id, media, communication_id, [], entries, participant.details, None)
    return [
        StandingTransition(
            each.id, each.from_state, each.to_state, each.event_time, each.time_class, each.milliseconds_in_from
        )
        for each in operations(state.conversation_id, change, state.source)
    ]
