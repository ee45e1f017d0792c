"""Whether a worker may open as many sockets as its lanes need.

The producer of a lane connects to the leaders of its outputs, to a broker for metadata, to one that finds coordinators,
and separately to the two coordinators. While a lane restores, it has a reader as well. In a small cluster some of these
are the same connection.
"""

import resource
from typing import Final

from consumer.preflight.check_result import CheckResult

_BASE: Final = 200
"""For the connections of both ports, of the group member and of the lag watch, and for files."""
_PRODUCER, _COORDINATORS, _READER = 5, 2, 2


def check(partitions: int, brokers: int, limit: int | None = None) -> CheckResult:
    """Whether a worker that owns all partitions has enough descriptors.

    `limit` is by default the hard limit of this process, to which `run` raises the soft one.
    """
    if limit is None:
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    per_lane = sum(min(brokers, connections) for connections in (_PRODUCER, _COORDINATORS, _READER))
    needed = _BASE + partitions * per_lane
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return CheckResult("descriptors", "pass", f"{needed} are enough for all {partitions} partitions")
    return CheckResult(
        "descriptors",
        "warn",
        f"a worker that is given all {partitions} partitions needs {needed} file descriptors and may have {limit}",
        f"raise the limit (`ulimit -Hn`, LimitNOFILE), or run so many workers that each is given at most "
        f"{max(0, limit - _BASE) // per_lane} partitions",
    )
