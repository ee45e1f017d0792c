"""Where a rekey begins. Pure.

1. Records and the offsets up to which they were read are in one transaction, so each is in the target once.
2. The offsets are those of a consumer group for this target alone, which no member ever joins. All partitions get one
   before anything is written, so that what was begun can be told from what was not.
3. Without offsets, a target that holds records was filled by somebody else, or by a rekey whose offsets the broker has
   forgotten (`offsets.retention.minutes`): to begin there would write records twice, so it is refused.
4. A committed offset that the source does not hold any more means that records were lost to its retention before they
   were read. That is told, and the rest is copied.
"""

from collections.abc import Mapping

from msgspec import Struct


class Beginning(Struct, frozen=True):
    """Where each partition of the source is read from."""

    starts: dict[int, int]
    is_new: bool
    """Whether these offsets have to be committed before anything is written."""
    lost: int
    """Offsets that were passed over, for retention was faster."""


def beginning(
    begins: Mapping[int, int], committed: Mapping[int, int | None], *, is_target_empty: bool
) -> Beginning | None:
    """Where to begin, by the first offset of each partition of the source and the group's offset, if it has one.

    None where the target is in use.
    """
    found = {number: at for number, at in committed.items() if at is not None}
    if not found and not is_target_empty:
        return None
    starts = {number: max(at, found.get(number, at)) for number, at in begins.items()}
    lost = sum(starts[number] - at for number, at in found.items())
    return Beginning(starts, len(found) < len(begins), lost)
