"""Values that were measured once: no operator has a reason to change them, tests may replace them.

What `deploy/` tells an operator to change is a setting, and comes from the environment.
"""

from typing import Final

from msgspec import Struct

_HEARTBEATS_MIN: Final = 3
"""Kafka's advice: a worker that misses two heartbeats stays in its group."""
_COMMITS_MIN: Final = 2
"""A revocation waits for a commit in flight, for half the rebalance timeout."""
_TRANSACTION_MIN: Final = 1.25
"""A commit has been given up before the broker aborts its transaction."""


class Tuning(Struct, frozen=True, kw_only=True):
    """Every such value with its default. Units are last in the names."""

    heartbeats_per_session: int = 9
    """Heartbeats to the group within the session timeout."""
    commits_per_rebalance: float = 3.0
    """The rebalance timeout in commit timeouts. Lanes have half of it for their last commits."""
    commits_per_transaction: float = 1.5
    """The transaction timeout in commit timeouts."""
    max_poll_interval_ms: int = 300_000
    """How long a worker stays in the group without progress."""
    request_timeout_ms: int = 15_000
    """How long to wait for a broker's answer to one request."""
    retry_s_max: float = 300.0
    """How long a lane tries to recover before the process ends; longer while other lanes move."""
    partition_fetch_bytes_max: int = 4_194_304
    """Bytes fetched of a partition with one request; a larger batch of records is fetched all the same."""
    fetch_records_max: int = 500
    """Records taken from the fetch buffer at a time."""
    commit_bytes_max: int = 16_777_216
    """Bytes of effects that make a commit due at once."""
    slice_ms_max: float = 2.5
    """How long a lane processes records before the event loop gets its turn."""
    dead_letters_window_records: int = 1_000
    """Records over which the breaker takes the share of dead letters."""


_DEFAULT: Final = Tuning()
assert _DEFAULT.heartbeats_per_session >= _HEARTBEATS_MIN
assert _DEFAULT.commits_per_rebalance >= _COMMITS_MIN
assert _DEFAULT.commits_per_transaction >= _TRANSACTION_MIN
