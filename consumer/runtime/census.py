"""How many communications there are in each state, and which live one is the oldest, over the states of one lane.

1. Only committed states are counted: changes are taken in when their commit has succeeded.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from consumer.core.belonging import Leg, places, timelines
from consumer.core.conversation import Change
from consumer.core.lifecycle import LIVE
from consumer.core.rules import Rules
from consumer.core.timeline import fold
from schemas.state import Media, Observation

_Uid = tuple[str, str, str, str | None]


class _Communication(Struct, rename="camel"):
    media: Media
    details: "_Details"
    timeline: list[Observation]
    communication_id: str | None = None
    session_digest: str | None = None

    def leg(self) -> Leg:
        """What belonging depends on."""
        return Leg(self.communication_id, self.session_digest, self.details.cobrowse_session_digest, self.timeline)


class _Details(Struct, rename="camel"):
    cobrowse_session_digest: str | None = None


class _Participant(Struct, rename="camel"):
    participant_id: str
    communications: list[_Communication] = []


class _Conversation(Struct, rename="camel"):
    """As much of a published state as the census needs."""

    participants: list[_Participant] = []


_DECODER = msgspec.json.Decoder(_Conversation)


class Census:
    """Counts over the committed states of one lane. `cycles_max` is the rules' `park_cycles_max`."""

    def __init__(self, cycles_max: int = Rules().park_cycles_max) -> None:
        self._cycles_max = cycles_max
        self.states: Counter[tuple[str, str]] = Counter()
        """Communications by (media, state)."""
        self._live_since: dict[str, dict[_Uid, str]] = {}

    def oldest_live(self) -> dict[str, str]:
        """The first event time (published text) of the oldest live communication, by media."""
        return {media: min(since.values()) for media, since in self._live_since.items() if since}

    def live_media(self) -> list[str]:
        """Media in which there are or were live communications."""
        return list(self._live_since)

    def live(self, media: str) -> Mapping[_Uid, str]:
        """When each live communication of a medium began (published text), by its ids.

        It changes whenever the loop has its turn, so whoever goes through it in slices copies the keys first.
        """
        return self._live_since.get(media, {})

    def add_state(self, conversation_id: str, state: bytes) -> None:
        """Count a restored state."""
        self._count_state(conversation_id, state, 1)

    def remove_state(self, conversation_id: str, state: bytes) -> None:
        """Stop counting a state that was evicted."""
        self._count_state(conversation_id, state, -1)

    def change(self, conversation_id: str, change: Change) -> None:
        """Take in what a record changed in one communication."""
        if change.before:
            self.states[change.media, change.before[-1].to_state] -= 1
        if change.after:
            self.states[change.media, change.after[-1].to_state] += 1
        uid = (conversation_id, change.participant_id, change.media, change.communication_id)
        since = self._live_since.setdefault(change.media, {})
        if change.live:
            since[uid] = change.after[0].time
        else:
            since.pop(uid, None)

    def _count_state(self, conversation_id: str, state: bytes, by: int) -> None:
        """Count what `change` counts: the same timelines, joined and folded in the same way."""
        for participant in _DECODER.decode(state).participants:
            legs: dict[Media, list[Leg]] = {}
            for communication in participant.communications:
                legs.setdefault(communication.media, []).append(communication.leg())
            for media, of_media in legs.items():
                since = self._live_since.setdefault(media, {})
                for communication_id, timeline in timelines(of_media, places(of_media), self._cycles_max).items():
                    self.states[media, timeline[-1].state] += by
                    uid = (conversation_id, participant.participant_id, media, communication_id)
                    if by > 0 and timeline[-1].rank <= LIVE:
                        since[uid] = fold(timeline)[0].time
                    else:
                        since.pop(uid, None)
