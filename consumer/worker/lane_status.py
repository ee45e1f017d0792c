"""What others see of a lane: the worker, its probes, the pages and the metrics.

The lane changes it, and the watch of the lag sets lag and standstill.
"""

from typing import Literal

from msgspec import Struct

from consumer.engine.protocol import Engine
from consumer.worker.commit_ledger import CommitLedger
from consumer.worker.standstill import Standstill

Phase = Literal["opening", "running", "full", "blocked", "fenced", "failing", "closed"]


class AwaitedPartition(Struct, eq=False):
    """A partition that was revoked, until the group assigns partitions again: how far its lane had come."""

    partition: int
    committed_offset: int | None
    lag_records: int | None
    standstill: Standstill | None


class LaneStatus:
    """How far a lane has come, and what keeps it from reading. `now_s` is the monotonic time of its beginning."""

    def __init__(self, partition: int, engine: Engine, now_s: float) -> None:
        self.partition = partition
        self.engine = engine
        self.phase: Phase = "opening"
        self.has_opened = False
        """Whether its states were complete once; from then on they hold what is committed."""
        self.last_progress_s = now_s
        self.lag_records: int | None = None
        """Records between its position and the end of the partition, as last known; None before that."""
        self.restore_records: int | None = None
        """Records of the state topic that are left to restore; None before it began to."""
        self.standstill: Standstill | None = None
        """Set while its partition stands still."""
        self._ledger = CommitLedger()
        self._waits_for_memory = ""
        """Why there is no memory for more states, while the lane waits for it."""
        self._failure = ""
        """Its last failure, as a message."""
        self._unreadable = ""
        """Why a batch cannot be read, if the lane has stopped at one."""

    def __repr__(self) -> str:
        return f"<Lane {self.partition} {self.phase}, {len(self.engine.states)} conversations, next {self.next_offset}>"

    @property
    def is_open(self) -> bool:
        """Whether it owns the partition and its store holds all that is committed, as far as it can know."""
        return self.phase in {"running", "full", "blocked"}

    @property
    def is_reading(self) -> bool:
        """Whether it reads records."""
        return self.phase == "running"

    @property
    def problem(self) -> str:
        """What keeps the lane from reading, if that is known; else empty."""
        if self.phase == "blocked":
            return self.engine.open_reason or self._unreadable
        if self._waits_for_memory:
            return self._waits_for_memory
        if self.is_reading:
            return ""
        if self.phase == "opening" and self.restore_records:
            return f"its state is restored, {self.restore_records} records are left"
        return self._failure

    @property
    def next_offset(self) -> int | None:
        """The offset after the last record that was processed; None as long as the lane has not opened."""
        return self.engine.next_offset

    @property
    def committed_offset(self) -> int | None:
        """Where the lane would continue if it opened again; None as long as it does not know."""
        return self._ledger.resume_offset

    def to_awaited(self) -> AwaitedPartition:
        """What is left of the lane after a revocation. It holds no states."""
        return AwaitedPartition(self.partition, self.committed_offset, self.lag_records, self.standstill)
