"""The options of a benchmark run, and the form of its results."""

from msgspec import Struct

Line = dict[str, str | int | float]
"""One result, printed as JSON; `name` is the measured quantity."""


class Options(Struct, frozen=True, kw_only=True):
    """How much work a part does. With the defaults every part ends within about four minutes."""

    events: int = 50_000
    """Records per run."""
    rounds: int = 3
    """Interleaved runs of every kind; the result is their median."""
    conversations: int = 100_000
    """Conversations in the restored or rebalanced state."""
    seconds: float = 20.0
    """Duration of the latency measurement."""
    rate: float = 0.0
    """Records per second in the latency measurement; 0 takes a quarter of the worker's throughput, measured before."""
    churn_minutes: float = 3.0
    """How long restored conversations are updated."""
    updates_per_s: int = 300
    """Rate of those updates."""
    framings: tuple[str, ...] = ()
    """What is around each record in the throughput measurement, the outermost first."""


BOUNDS = {
    "events": (1, 1_000_000),
    "rounds": (1, 20),
    "conversations": (1, 5_000_000),
    "seconds": (5.0, 600.0),
    "rate": (0.0, 100_000.0),
    "churn_minutes": (0.1, 60.0),
    "updates_per_s": (1, 2_000),
}
"""Minimum and maximum of every option that is a number."""
