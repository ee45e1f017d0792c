"""Counts of communications by medium and state, and the oldest live one, over the states of one lane.

1. Only committed states are counted, by the summary at the head of their bytes.
2. A pair of medium and state without communications is removed: records may name any state.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from schemas.state import Summary


class LiveIndex:
    """Counts over the committed states of one lane."""

    def __init__(self) -> None:
        self.states: Counter[tuple[str, str]] = Counter()
        """Communications by (media, state)."""
        self._live_since: dict[str, dict[str, list[str]]] = {}
        """By media and conversation: when its live communications began."""

    def oldest_live(self) -> dict[str, str]:
        """When the oldest live communication began (published text), by media."""
        return {media: min(since.values())[0] for media, since in self._live_since.items() if since}

    def live_media(self) -> list[str]:
        """Media in which there are or were live communications."""
        return list(self._live_since)

    def live(self, media: str) -> Mapping[str, Sequence[str]]:
        """When live communications of a medium began (published text, each time once, sorted), by conversation.

        It changes between two turns of the event loop: a caller that reads it in slices copies the keys first.
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
