"""What a broker's log says of transaction markers that it never wrote (KAFKA-20734).

A coordinator that ends a transaction while one of its partitions has no leader skips that partition for good, and takes
the transaction for complete. It says so in one line, which names all partitions that it skipped at that moment.
"""

import re
from collections.abc import Iterable, Iterator

from aiokafka import TopicPartition
from msgspec import Struct

_HINT = b"Couldn't find leader endpoint for partitions "
_LINE = re.compile(
    re.escape(_HINT)
    + rb"\w*[(\[](?P<partitions>[^)\]]+)[)\]] while trying to send transaction markers for (?P<id>\S+), "
)


class LostMarker(Struct, frozen=True):
    """One partition that was skipped at the end of one transaction."""

    transactional_id: str
    partition: TopicPartition


def find_lost_markers(log_lines: Iterable[bytes]) -> Iterator[LostMarker]:
    """The markers that these lines of a broker's log name, in order."""
    for line in log_lines:
        if _HINT not in line:  # a broker writes many lines, and a search by regular expression takes its time
            continue
        found = _LINE.search(line)
        if found is None:
            raise ValueError(f"this Kafka reports a lost marker in other words: {line!r}")
        for name in found["partitions"].decode().split(", "):
            topic, _, number = name.rpartition("-")
            yield LostMarker(found["id"].decode(), TopicPartition(topic, int(number)))
