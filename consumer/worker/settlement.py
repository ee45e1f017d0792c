"""How a transaction ended whose markers a broker has lost (KAFKA-20734), by what its other partitions show. Pure.

A lane's transaction holds the offset, and records of some outputs. It ends the same way in all of them. So the parts
whose markers arrived show how the parts that hang have ended.

1. If the offset's marker arrived, the offset decides. Its metadata says where the outputs ended with the newest commit.
   Records that hang before that end belong to the commit, and records after it to an abort.
2. If the offset hangs, a committed record after that end shows a commit. So does a commit call that returned.
3. If nothing shows a commit, it was an abort: no reader has seen any of it, and its input is read again. A broker may
   show a commit late, so an abort is believed only after it was seen several times in a row.
4. A contradiction is not decided, nor is an output of which the metadata does not say where it ended.
"""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from consumer.settings import OUTPUTS, OutputName
from consumer.worker.offset_metadata import Ends, OffsetMetadata

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
    settlement: Settlement, metadata: OffsetMetadata | None, shown: frozenset[OutputName], *, is_known_commit: bool
) -> Verdict | None:
    """The verdict over what hangs; None where it cannot be known.

    `metadata` is that of the committed offset as far as it is decided, None where there never was one. `shown` are the
    outputs that show a committed record behind its ends. `is_known_commit` says that the lane knows of a commit that
    is newer than that offset.
    """
    ends = ends_of(metadata)
    before = {output: _is_before(start, ends.of(output)) for output, start in settlement.hanging.items()}
    if settlement.is_offset_pending:
        if is_known_commit or shown:
            return "commit"
        return "abort" if _are_known(ends) and not any(before.values()) else None
    was_reset = metadata is not None and ends == Ends()  # by an operator: nothing that hangs is part of this offset
    if was_reset or set(before.values()) == {False}:
        return "abort"
    return "commit" if set(before.values()) == {True} else None


def ends_of(metadata: OffsetMetadata | None) -> Ends:
    """Where the outputs end with a committed offset; at their beginning where there is none."""
    return Ends(0, 0, 0) if metadata is None else metadata.ends


def _are_known(ends: Ends) -> bool:
    return all(ends.of(output) is not None for output in OUTPUTS)


def _is_before(offset: int, end: int | None) -> bool | None:
    return None if end is None else offset < end
