"""Find one correction in the log of transitions: what was believed, what came late, what stands now. Pure."""

from collections.abc import Iterator

from msgspec import Struct

from schemas.transition import Transition

_STATES = 2
"""An earlier state was missed, so that two transitions take the place of the one that was believed."""


class Story(Struct, frozen=True):
    """A correction: all its operations are of one record."""

    believed: Transition
    """What was published first, and retracted."""
    asserted: tuple[Transition, ...]
    """What took its place, in the order of events."""

    def lines(self) -> Iterator[str]:
        """The story in words."""
        believed, source = self.believed, self.believed.source
        owner = f" of the {believed.context.purpose}" if believed.context.purpose else ""
        yield f"a correction: {believed.media}{owner}, conversation {believed.conversation_id}"
        yield f"  believed at first:  {_describe(believed)}"
        yield f"  then came late:     the record at offset {source.offset} of partition {source.partition}"
        yield f"  corrected to:       {', then '.join(map(_describe, self.asserted))}"


class StoryFinder:
    """Looks for a story among transitions as they are published."""

    def __init__(self) -> None:
        self.found: Story | None = None
        self._operations: list[Transition] = []
        """Those of the newest record."""

    def add(self, transition: Transition) -> None:
        """Add the next operation of a partition of the log."""
        if self._operations and self._operations[0].source != transition.source:
            self._operations = []
        self._operations.append(transition)
        retracted = [operation for operation in self._operations if operation.op == "retract"]
        if self.found is None and len(retracted) == 1:
            believed = retracted[0]
            asserted = [
                operation
                for operation in self._operations
                if operation.op == "assert" and operation.communication_id == believed.communication_id
            ]
            is_told = len(asserted) == _STATES and asserted[-1].to_state == believed.to_state
            if is_told and asserted[0].event_time < believed.event_time:
                self.found = Story(believed, tuple(asserted))


def _describe(transition: Transition) -> str:
    return f"{transition.to_state} at {transition.event_time[11:-1]}"
