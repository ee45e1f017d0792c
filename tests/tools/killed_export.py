"""Export with one kill after the other: `python -m tests.tools.killed_export FOLDER` prints how many there were.

A process of its own, since it forks. Each child goes on with the export and ends at once, with no `finally` of Python,
before a slice of records or where a file would be synced: one step later than the child before.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from tests.tools.exports import Topics, export
from tests.tools.test_export import TABLES, traffic

_KILLED = 9


def die_after(steps: int, topics: Topics) -> None:
    """Have this process end at the step after so many."""
    left = steps
    sync = os.fsync

    def step() -> None:
        nonlocal left
        if left == 0:
            os._exit(_KILLED)
        left -= 1

    def sync_or_die(fd: Any) -> None:
        step()
        sync(fd)

    topics.on_slice = step
    os.fsync = sync_or_die


def main(folder: Path) -> None:
    """Make one export as a whole and one that is killed again and again; the test compares them."""
    topics = Topics(traffic(100))
    asyncio.run(export(topics, folder / "whole", tables=TABLES))
    kills = 0
    while True:
        child = os.fork()
        if child == 0:
            die_after(kills, topics)
            asyncio.run(export(topics, folder / "killed", tables=TABLES))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == _KILLED
        kills += 1
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
