"""What the lines of `witness` have to agree with: the topics."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from consumer.core.record import Record
from tests.live.expectation import USED
from tests.live.witness import digest_of_one


def misremembered(told: Iterable[dict[str, Any]], state_log: Iterable[Record]) -> Iterator[str]:
    """Each time a lane told the digest of its memory it had to be that of the state topic up to there.

    So memory after a restore equals memory before the crash: both equal the same part of the topic.
    """
    asked: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in told:
        asked[line["partition"]][line["log_offset"]].add(line["digest"])
    logs: dict[int, list[Record]] = defaultdict(list)
    for record in state_log:
        logs[record.partition].append(record)
    for partition, offsets in asked.items():
        held: dict[bytes, int] = {}
        combined = 0
        log = iter(logs[partition])
        ahead = next(log, None)
        for offset in sorted(offsets):
            while ahead is not None and ahead.offset < offset:
                assert ahead.key is not None
                one = digest_of_one(ahead.key.decode(), ahead.value) if ahead.value is not None else 0
                combined ^= held.pop(ahead.key, 0) ^ one
                held[ahead.key] = one
                ahead = next(log, None)
            if offsets[offset] != {f"{combined:032x}"}:
                yield f"memory of partition {partition} at {offset} of the state topic is not what the topic holds"


def miscounted(told: Iterable[dict[str, Any]], fates: Mapping[tuple[int, int], str], silenced: int) -> Iterator[str]:
    """Each record was counted once, under the disposition that it had to have.

    `silenced` lanes may have committed without telling.
    """
    by_partition: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in told:
        by_partition[line["partition"]].append(line)
    untold = 0
    for partition, lines in by_partition.items():
        offsets = sorted(offset for each, offset in fates if each == partition)  # those of control records are not
        reached = 0
        for line in sorted(lines, key=lambda line: line["next_offset"]):
            counts, after = line["counts"], bisect_left(offsets, line["next_offset"])
            first = after - sum(counts.values())
            if first < reached:
                yield f"{reached - first} records of partition {partition} before {line['next_offset']} counted twice"
            untold += first > reached
            reached = after
            wanted = Counter(fates[partition, offset] for offset in offsets[max(0, first) : after])
            used = Counter({USED: counts.get("applied", 0) + counts.get("unchanged", 0)})
            used.update({each: counts[each] for each in ("ignored", "dead_lettered") if each in counts})
            if +used != wanted:
                yield f"partition {partition} up to {line['next_offset']} counted {counts}, not {dict(wanted)}"
        untold += reached < len(offsets)
    if untold > silenced:
        yield f"{untold} commits were counted nowhere, though only {silenced} lanes were silenced"
