"""How many communications there are in each state, and which live one is the oldest, over the states of one lane.

1. Only committed states are counted, by what each says of itself at its head.
2. Nothing is kept of a state that no communication is in: records may name any.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from schemas.state import Summary


class Census:
    """Counts over the committed states of one lane."""

    def __init__(self) -> None:
        self.states: Counter[tuple[str, str]] = Counter()
        """Communications by (media, state)."""
        self._live_since: dict[str, dict[str, list[str]]] = {}
        """By media: of each conversation with live communications, when they began."""

    def oldest_live(self) -> dict[str, str]:
        """When the oldest live communication began (published text), by media."""
        return {media: min(since.values())[0] for media, since in self._live_since.items() if since}

    def live_media(self) -> list[str]:
        """Media in which there are or were live communications."""
        return list(self._live_since)

    def live(self, media: str) -> Mapping[str, Sequence[str]]:
        """When live communications of a medium began (published text, each time once, sorted), by conversation.

        It changes whenever the loop has its turn, so whoever goes through it in slices copies the keys first.
        """
        return self._live_since.get(media, {})

    def replace(self, conversation_id: str, before: Summary | None, after: Summary | None) -> None:
        """Count a conversation as `after` where it was counted as `before`; None is one that is not there."""
        if before is not None:
            self._count(before, -1)
            for media in before.live_since:
                del self._live_since[media][conversation_id]
        if after is not None:
            self._count(after, 1)
            for media, since in after.live_since.items():
                self._live_since.setdefault(media, {})[conversation_id] = since

    def _count(self, summary: Summary, by: int) -> None:
        for media, states in summary.communications.items():
            for state, count in states.items():
                left = self.states[media, state] + by * count
                if left:
                    self.states[media, state] = left
                else:
                    del self.states[media, state]
