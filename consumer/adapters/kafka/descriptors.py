"""Whether a worker may open as many sockets as its lanes need.

A lane has a producer, which is connected to the leaders of its outputs, a broker that it asks for metadata and one that
it asks for coordinators, and once more to the two coordinators; while it restores, a reader as well. With few brokers
these are the same.
"""

import resource
from typing import Final

from consumer.adapters.kafka.finding import Finding

_BASE: Final = 200
"""Connections of both ports, those of the group member and of the watch, files."""
_PRODUCER, _COORDINATORS, _READER = 5, 2, 2


def check(partitions: int, brokers: int, limit: int | None = None) -> Finding:
    """Whether a worker that is given all partitions has enough; `limit` is this process's if it is not given.

    `run` raises the soft limit to the hard one.
    """
    if limit is None:
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    of_lane = sum(min(brokers, most) for most in (_PRODUCER, _COORDINATORS, _READER))
    needed = _BASE + partitions * of_lane
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return Finding("descriptors", "pass", f"{needed} are enough for all {partitions} partitions")
    return Finding(
        "descriptors",
        "warn",
        f"a worker that is given all {partitions} partitions needs {needed} file descriptors and may have {limit}",
        f"raise the limit (`ulimit -Hn`, LimitNOFILE), or run so many workers that each is given at most "
        f"{max(0, limit - _BASE) // of_lane} partitions",
    )
