"""Work that any machine can be measured by: ordinary records are decoded into dicts, walked through and encoded.

It knows nothing of the core. So a time divided by that of the same machine, taken in turns, says something of the code.
"""

import time
from typing import Any

import msgspec

from consumer.core.record import Record
from consumer.simulator.traffic import Traffic, records


def draw_ordinary(size: int) -> list[Record]:
    """As many bytes of ordinary records as go into so many."""
    found: list[Record] = []
    for draft in records(Traffic(broken=0, ignorable=0)):
        size -= len(draft.value)
        if size < 0:
            break
        found.append(Record("t", 0, len(found), draft.timestamp_ms, draft.key, draft.value))
    return found


def walk(made: list[Record]) -> None:
    """The work: decode, look at everything as bytecode does, and encode."""
    for record in made:
        document = msgspec.json.decode(record.value or b"")
        assert _walk(document) > 1
        assert msgspec.json.encode(document)


def walk_s(made: list[Record]) -> float:
    """The CPU time of that."""
    started_s = time.thread_time()
    walk(made)
    return time.thread_time() - started_s


def _walk(node: Any) -> int:
    """How much a document holds."""
    if isinstance(node, dict):
        return sum([_walk(value) for value in {key.lower(): value for key, value in node.items()}.values()]) + 1
    if isinstance(node, list):
        return sum([_walk(value) for value in node]) + 1
    return 1
