"""What a run of the benchmarks is like, and the form of what it prints."""

from msgspec import Struct

Line = dict[str, str | int | float]
"""One result, to be printed as JSON. `name` says what was measured."""


class Options(Struct, frozen=True, kw_only=True):
    """How much each part does. What is not said stays so small that every part ends within some four minutes."""

    events: int = 50_000
    """Records that a run reads."""
    rounds: int = 3
    """Runs of each kind, interleaved; the median counts."""
    conversations: int = 100_000
    """Conversations in the state that is restored, or moved in a rebalance."""
    seconds: float = 20.0
    """How long latency is measured."""
    rate: float = 0.0
    """Records a second at which latency is measured; 0 for a quarter of what the worker can do, measured before."""
    churn_minutes: float = 3.0
    """How long restored conversations are changed."""
    updates_per_s: int = 300
    """How many of them."""


BOUNDS = {
    "events": (1, 1_000_000),
    "rounds": (1, 20),
    "conversations": (1, 5_000_000),
    "seconds": (5.0, 600.0),
    "rate": (0.0, 100_000.0),
    "churn_minutes": (0.1, 60.0),
    "updates_per_s": (1, 2_000),
}
"""The least and the most that each may be."""
