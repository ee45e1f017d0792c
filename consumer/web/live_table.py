"""What is live? Counts by medium and state in an order that never changes, as the live page shows them. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, get_args

from msgspec import Struct

from consumer.core.lifecycle import RANKS
from schemas.query import LiveCount
from schemas.state import Media

MEDIA: Final[tuple[Media, ...]] = get_args(Media)
_ORDER: Final = {state: index for index, state in enumerate(RANKS)}


class Share(Struct, frozen=True):
    """The live communications of a medium in one state. `x` and `width` are those of a bar, in percent."""

    state: str
    count: int
    x: float
    width: float


class MediumRow(Struct, frozen=True):
    """The live communications of a medium."""

    media: Media
    count: int
    shares: list[Share]


def arrange(live: Sequence[LiveCount]) -> list[MediumRow]:
    """A row for each medium, empty ones included: no row ever moves. The longest bar is 100 percent wide."""
    states = defaultdict[str, dict[str, int]](dict)
    for count in live:
        states[count.media][count.state] = count.count
    largest = max((sum(counts.values()) for counts in states.values()), default=0)
    return [_row(media, states[media], largest) for media in MEDIA]


def _row(media: Media, counts: dict[str, int], largest: int) -> MediumRow:
    shares, x = [], 0.0
    for state in sorted(counts, key=lambda state: (_ORDER.get(state, len(_ORDER)), state)):
        width = 100 * counts[state] / largest
        shares.append(Share(state, counts[state], round(x, 2), round(width, 2)))
        x += width
    return MediumRow(media, sum(counts.values()), shares)
