"""The worker, telling on stderr what it commits and what it then holds: `python -m tests.live.witness`, then as `run`.

`witness.committed`: a lane committed so many records of each disposition, up to an offset of its input partition.
`witness.state`: the digest of all states that a lane has in memory, which are those of the state topic before
`log_offset`; told after each restore, and then of a commit now and then.
"""

import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from consumer.__main__ import main
from consumer.adapters.kafka.publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.adapters.monitoring.telemetry import ServiceTelemetry
from consumer.runtime.bookmark import Ends
from consumer.runtime.ports import Effects
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally

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
    stores: dict[int, StateStore] = {}
    told_s: dict[int, float] = {}
    real_committed, real_restored = ServiceTelemetry.committed, ServiceTelemetry.restored

    def noting(commit: Callable[[Any, Effects], Awaitable[Ends]]) -> Any:
        async def noted(self: Any, effects: Effects) -> Ends:
            next_offsets[self._partition] = effects.next_offset
            return await commit(self, effects)

        return noted

    def committed(
        self: ServiceTelemetry, partition: int, tally: Tally, duration_s: float, lag_records: int | None
    ) -> None:
        real_committed(self, partition, tally, duration_s, lag_records)
        counts: dict[str, int] = {}
        for (disposition, _), count in tally.records.items():
            counts[disposition] = counts.get(disposition, 0) + count
        _tell("witness.committed", partition=partition, next_offset=next_offsets[partition], counts=counts)
        if time.monotonic() - told_s[partition] > _STATE_EVERY_S:
            tell_state(partition)

    def restored(self: ServiceTelemetry, partition: int, store: StateStore, duration_s: float) -> None:
        real_restored(self, partition, store, duration_s)
        stores[partition] = store
        tell_state(partition)

    def tell_state(partition: int) -> None:
        store = stores[partition]
        told_s[partition] = time.monotonic()
        told = digest((key, bytes(state)) for key, state in store.items())
        _tell("witness.state", partition=partition, log_offset=store.log_offset, digest=f"{told:032x}")

    for publisher in (TransactionalPublisher, AtLeastOncePublisher):
        setattr(publisher, "commit", noting(publisher.commit))  # noqa: B010 - mypy lets no method be assigned
    ServiceTelemetry.committed = committed  # type: ignore[method-assign]
    ServiceTelemetry.restored = restored  # type: ignore[method-assign]


def _tell(event: str, **told: Any) -> None:
    """Write a line at once and as a whole: the process may be killed any moment."""
    os.write(_STDERR, (json.dumps({"event": event, **told}) + "\n").encode())


if __name__ == "__main__":
    install()
    main(["run"], prog_name="conversation-consumer")
