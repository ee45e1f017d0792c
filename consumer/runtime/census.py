"""How many communications there are in each state, and which live one is the oldest, over the states of one lane.

1. Only committed states are counted: changes are taken in when their commit has succeeded.
"""

from collections import Counter

import msgspec
from msgspec import Struct

from consumer.core.conversation import Change, is_live
from consumer.core.lifecycle import LIVE, RANKS

_Uid = tuple[str, str, str, str | None]


class _Communication(Struct, rename="camel"):
    media: str
    timeline: list["_Observation"]
    communication_id: str | None = None
    session_digest: str | None = None
    state: str | None = None


class _Observation(Struct):
    state: str
    rank: int
    time: str


class _Participant(Struct, rename="camel"):
    participant_id: str
    communications: list[_Communication] = []


class _Conversation(Struct, rename="camel"):
    """As much of a published state as the census needs."""

    participants: list[_Participant] = []


_DECODER = msgspec.json.Decoder(_Conversation)


class Census:
    """Counts over the committed states of one lane."""

    def __init__(self) -> None:
        self.states: Counter[tuple[str, str]] = Counter()
        """Communications by (media, state)."""
        self._live_since: dict[str, dict[_Uid, str]] = {}

    def oldest_live(self) -> dict[str, str]:
        """The first event time (published text) of the oldest live communication, by media."""
        return {media: min(since.values()) for media, since in self._live_since.items() if since}

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
        if is_live(change.after):
            since[uid] = change.after[0].time
        else:
            since.pop(uid, None)

    def _count_state(self, conversation_id: str, state: bytes, by: int) -> None:
        for participant in _DECODER.decode(state).participants:
            for communication in participant.communications:
                if communication.state is None:
                    continue
                self.states[communication.media, communication.state] += by
                communication_id = communication.communication_id or communication.session_digest
                uid = (conversation_id, participant.participant_id, communication.media, communication_id)
                since = self._live_since.setdefault(communication.media, {})
                rank = RANKS.get(communication.state, communication.timeline[-1].rank)
                if by > 0 and rank <= LIVE:
                    since[uid] = communication.timeline[0].time
                else:
                    since.pop(uid, None)
