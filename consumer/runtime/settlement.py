"""Which way a transaction ended of which a broker has lost markers. Pure.

A lane's transaction has the offset and some of the outputs in it. It ends the same way everywhere, so each part whose
marker arrived shows the verdict for those that hang (KAFKA-20734).

1. The offset decides if it is not pending: records before where its bookmark says that the outputs end belong to a
   commit, those behind it to an abort.
2. Where the offset is pending, a record in an output behind the bookmark's end shows a commit; so does a lane whose
   commit call returned.
3. Where nothing shows a commit it is an abort: no reader has seen any of it, and its records are read again. A broker
   may be late to show something, so this is believed only when it is seen several times in a row.
4. What contradicts itself is not decided, nor what lies in an output whose end the bookmark does not have.
"""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from consumer.runtime.bookmark import OUTPUTS, Bookmark, Ends, OutputName

Verdict = Literal["commit", "abort"]

ABORTS_SEEN_MIN: Final = 3
"""How many times in a row nothing has to show a commit."""


class Settlement(Struct, frozen=True):
    """How far the brokers have decided over what a lane's transactions wrote."""

    stable: Ends = Ends()
    """Where the outputs end for readers of committed records."""
    hanging: Mapping[OutputName, int] = field(default_factory=dict)
    """Where the records begin that no marker decides over, in the outputs that have such records."""
    is_offset_pending: bool = False
    """Whether no marker decides over an offset."""

    @property
    def hangs(self) -> bool:
        """Whether there is anything to decide."""
        return bool(self.hanging) or self.is_offset_pending


def decide(
    settlement: Settlement, bookmark: Bookmark | None, shown: frozenset[OutputName], *, is_known_commit: bool
) -> Verdict | None:
    """The verdict over what hangs; None where it cannot be known.

    `bookmark` is that of the committed offset as far as it is decided, None where there never was one. `shown` are the
    outputs that show a committed record behind its ends. `is_known_commit` says that the lane knows of a commit that
    is newer than that offset.
    """
    ends = ends_of(bookmark)
    before = {output: _is_before(start, ends.of(output)) for output, start in settlement.hanging.items()}
    if settlement.is_offset_pending:
        if is_known_commit or shown:
            return "commit"
        return "abort" if _are_known(ends) and not any(before.values()) else None
    was_reset = bookmark is not None and ends == Ends()  # by an operator: nothing that hangs is part of this offset
    if was_reset or set(before.values()) == {False}:
        return "abort"
    return "commit" if set(before.values()) == {True} else None


def ends_of(bookmark: Bookmark | None) -> Ends:
    """Where the outputs end with a committed offset; at their beginning where there is none."""
    return Ends(0, 0, 0) if bookmark is None else bookmark.ends


def _are_known(ends: Ends) -> bool:
    return all(ends.of(output) is not None for output in OUTPUTS)


def _is_before(offset: int, end: int | None) -> bool | None:
    return None if end is None else offset < end
