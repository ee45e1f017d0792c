"""When a lane commits. Time is an argument, in seconds of any monotonic clock."""

from msgspec import Struct

from consumer.engine.protocol import Staged
from consumer.settings import Settings

_INTERVAL_MS_PER_LANE = 46
_INTERVAL_MS_MIN = 100
"""A transaction costs about 2 ms of a core: with these some 22 a second are begun however many lanes there are,
which keeps them below 5 % of a core."""
_CATCHING_UP_S = 1.0
"""The least time between commits of a lane that catches up: a state is written once for more of its records, and what
is seen a little later is old already."""


class CommitPolicy(Struct, frozen=True):
    """A commit is due by time since the first effect, by records or by bytes."""

    interval_s: float
    catching_up_s: float
    """The interval of a lane that has more records waiting than it can take at a time."""
    records_max: int
    bytes_max: int

    @classmethod
    def of(cls, settings: Settings, lanes: int) -> "CommitPolicy":
        """The policy for a worker that owns so many lanes."""
        interval_ms = settings.commit_interval_ms or max(_INTERVAL_MS_MIN, lanes * _INTERVAL_MS_PER_LANE)
        interval_s = interval_ms / 1_000
        catching_up_s = max(interval_s, _CATCHING_UP_S)
        return cls(interval_s, catching_up_s, settings.commit_records_max, settings.tuning.commit_bytes_max)

    def is_due(self, staged: Staged, now_s: float, *, catching_up: bool = False) -> bool:
        """Whether what is staged should be committed now."""
        interval_s = self.catching_up_s if catching_up else self.interval_s
        return staged.records > 0 and (
            staged.records >= self.records_max or staged.bytes >= self.bytes_max or now_s - staged.since_s >= interval_s
        )

    def poll_timeout_s(self, staged: Staged, now_s: float, idle_s: float) -> float:
        """How long to wait for more records: to the next commit, or `idle_s` if nothing is staged."""
        return max(0.0, staged.since_s + self.interval_s - now_s) if staged.records else idle_s
