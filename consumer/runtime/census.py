"""How many communications there are in each state, and which live one is the oldest, over the states of one lane.

1. Only committed states are counted, by what each says of itself at its head.
"""

from collections import Counter

from schemas.state import Summary


class Census:
    """Counts over the committed states of one lane."""

    def __init__(self) -> None:
        self.states: Counter[tuple[str, str]] = Counter()
        """Communications by (media, state)."""
        self._live_since: dict[str, dict[str, str]] = {}
        """By media: of each conversation with a live communication, when the oldest of them began."""

    def oldest_live(self) -> dict[str, str]:
        """When the oldest live communication began (published text), by media."""
        return {media: min(since.values()) for media, since in self._live_since.items() if since}

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
                self.states[media, state] += by * count
