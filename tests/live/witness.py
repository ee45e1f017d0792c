"""The worker, which also logs what it commits and then holds: `python -m tests.live.witness`, then as `run`.

`witness.committed`: a lane committed so many records of each disposition, up to an offset of its input partition.
`witness.state`: the digest of all states that a lane has in memory, which are those of the state topic before
`log_offset`; written after each restore, and after a commit now and then.
"""

import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from consumer.__main__ import main
from consumer.engine.commit_stats import CommitStats
from consumer.kafka.publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.telemetry.lane_gauges import LaneGauges, ReadStates
from consumer.telemetry.log_events import ServiceTelemetry
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import Effects, LaneRestored

_STATE_EVERY_S = 3.0
_STDERR = 2


def digest_of_one(key: str, state: bytes) -> int:
    """The digests of all conversations of a state are put together by exclusive or, so that order does not matter."""
    return int.from_bytes(hashlib.blake2b(b"%d %s %s" % (len(key), key.encode(), state), digest_size=16).digest())


def digest(states: Iterable[tuple[str, bytes]]) -> int:
    """The digest of a state."""
    combined = 0
    for key, state in states:
        combined ^= digest_of_one(key, state)
    return combined


def install() -> None:
    """Put the witness into this process."""
    next_offsets: dict[int, int] = {}
    states: ReadStates = dict
    written_s: dict[int, float] = {}
    real_committed, real_restored, real_watch = ServiceTelemetry.committed, ServiceTelemetry.restored, LaneGauges.watch

    def observe(commit: Callable[[Any, Effects], Awaitable[Ends]]) -> Any:
        async def commit_observed(self: Any, effects: Effects) -> Ends:
            next_offsets[self._partition] = effects.next_offset
            return await commit(self, effects)

        return commit_observed

    def committed(
        self: ServiceTelemetry, partition: int, stats: CommitStats, duration_s: float, lag_records: int | None
    ) -> None:
        real_committed(self, partition, stats, duration_s, lag_records)
        counts: dict[str, int] = {}
        for (disposition, _), count in stats.records.items():
            counts[disposition] = counts.get(disposition, 0) + count
        _write("witness.committed", partition=partition, next_offset=next_offsets[partition], counts=counts)
        if time.monotonic() - written_s[partition] > _STATE_EVERY_S:
            write_state(partition)

    def restored(self: ServiceTelemetry, partition: int, restored: LaneRestored) -> None:
        real_restored(self, partition, restored)
        write_state(partition)

    def watch(self: LaneGauges, read_states: ReadStates, *others: Any) -> None:
        nonlocal states
        real_watch(self, read_states, *others)
        states = read_states

    def write_state(partition: int) -> None:
        store = states()[partition]
        written_s[partition] = time.monotonic()
        combined = digest((key, bytes(state)) for key, state in store.items())
        _write("witness.state", partition=partition, log_offset=store.log_offset, digest=f"{combined:032x}")

    for publisher in (TransactionalPublisher, AtLeastOncePublisher):
        setattr(publisher, "commit", observe(publisher.commit))  # noqa: B010 - mypy lets no method be assigned
    ServiceTelemetry.committed = committed  # type: ignore[method-assign]
    ServiceTelemetry.restored = restored  # type: ignore[method-assign]
    LaneGauges.watch = watch  # type: ignore[assignment,method-assign]


def _write(event: str, **fields: Any) -> None:
    """Write a line at once and as a whole: the process may be killed any moment."""
    os.write(_STDERR, (json.dumps({"event": event, **fields}) + "\n").encode())


if __name__ == "__main__":
    install()
    main(["run"], prog_name="conversation-consumer")
