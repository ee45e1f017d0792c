"""What the lines of `witness` have to agree with: the topics."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from consumer.core.record import Record
from tests.live.expectation import USED
from tests.live.witness import digest_of_one


def find_wrong_memory(lines: Iterable[dict[str, Any]], state_log: Iterable[Record]) -> Iterator[str]:
    """Each digest that a lane wrote of its memory had to be that of the state topic up to there.

    So memory after a restore equals memory before the crash: both equal the same part of the topic.
    """
    asked: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in lines:
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


def find_wrong_counts(
    lines: Iterable[dict[str, Any]], fates: Mapping[tuple[int, int], str], silenced: int, aborts: Counter[int]
) -> Iterator[str]:
    """Each record was counted once, under the disposition that it had to have.

    `silenced` lanes may have committed without a line. `aborts` says how often lanes of each partition aborted what had
    lost all its markers: a broker may have answered that commit to the lane before, which counted the records too.
    """
    aborts = aborts.copy()
    by_partition: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_partition[line["partition"]].append(line)
    missing = 0
    for partition, of_partition in by_partition.items():
        offsets = sorted(offset for number, offset in fates if number == partition)  # those of control records are not
        reached = 0
        for line in sorted(of_partition, key=lambda line: line["next_offset"]):
            counts, after = line["counts"], bisect_left(offsets, line["next_offset"])
            first = after - sum(counts.values())
            if first < reached and aborts[partition]:
                aborts[partition] -= 1
            elif first < reached:
                yield f"{reached - first} records of partition {partition} before {line['next_offset']} counted twice"
            missing += first > reached
            reached = after
            wanted = Counter(fates[partition, offset] for offset in offsets[max(0, first) : after])
            used = Counter({USED: counts.get("applied", 0) + counts.get("unchanged", 0)})
            used.update(
                {
                    disposition: counts[disposition]
                    for disposition in ("ignored", "dead_lettered")
                    if disposition in counts
                }
            )
            if +used != wanted:
                yield f"partition {partition} up to {line['next_offset']} counted {counts}, not {dict(wanted)}"
        missing += reached < len(offsets)
    if missing > silenced:
        yield f"{missing} commits were counted nowhere, though only {silenced} lanes were silenced"
