"""How much memory the states of a worker take, and whether there is room for more. Pure."""

from typing import Final

from msgspec import Struct

from consumer.engine.protocol import Engine

_CONVERSATION_BYTES: Final = 300
"""What a conversation takes beside its state, measured with a million of them."""
_NEAR: Final = 0.9


def measure(engine: Engine) -> int:
    """What the committed states of an engine take. What it stages has a bound of its own, `commit_bytes_max`."""
    states = engine.states
    return states.committed_bytes + _CONVERSATION_BYTES * len(states)


class StateMemory(Struct, frozen=True):
    """What the states of all lanes take together."""

    bytes: int
    bytes_max: int
    """0 for no limit."""

    @property
    def is_near(self) -> bool:
        """Whether little is left, or nothing."""
        return 0 < self.bytes_max * _NEAR <= self.bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing is left, so that no lane may read on."""
        return 0 < self.bytes_max <= self.bytes

    @property
    def sentence(self) -> str:
        """How much is taken of how much."""
        return f"the states of this worker take {self.bytes} of {self.bytes_max} bytes (CC_STATE_TOTAL_BYTES_MAX)"
