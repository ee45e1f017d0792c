"""What the runtime needs of the world. Adapters implement these; so do the fakes of the tests.

Errors an adapter may raise, and whose fault they are:

| error         | meaning                                   | what the runtime does                  |
| ------------- | ----------------------------------------- | -------------------------------------- |
| `Unreachable` | the broker does not answer, or cannot now | drops what is staged, reopens the lane |
| `Fenced`      | another worker owns the partition         | drops the lane until assigned anew     |
| `Misfit`      | settings, permissions or topics are wrong | ends the process with the message      |
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, get_args

import msgspec
from msgspec import Struct

from consumer.core.record import Record
from consumer.runtime.bookmark import Bookmark, Ends, OutputName
from consumer.runtime.settlement import Settlement, Verdict
from consumer.runtime.standstill import Lag, LogEnd, Standstill
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally


class WorldError(Exception):
    """Base of what can go wrong outside the process. The message says what to do and holds no data of records."""


class Unreachable(WorldError):
    """A failure that can heal by itself."""


class Fenced(WorldError):
    """The lane's transactional id was taken over."""


class Misfit(WorldError):
    """A failure that only an operator can mend."""


class Committed(Struct, frozen=True):
    """The group's committed offset of an input partition, with what was stored beside it."""

    next_offset: int
    metadata: str


class Chunk(Struct, frozen=True):
    """Part of a state topic's partition, in order. A None value is a tombstone."""

    entries: list[tuple[bytes, bytes | None]]
    next_offset: int
    end_offset: int


class Output(Struct, frozen=True):
    """A record to publish, in the partition of its input."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Effects(Struct, frozen=True):
    """Everything that one commit makes visible at once."""

    next_offset: int
    """The input offset to continue from."""
    bookmark: Bookmark
    """For the offset's metadata; its `ends` are those of the commit before."""
    states: list[Output]
    transitions: list[Output]
    dead_letters: list[Output]

    def committed(self, ends: Ends) -> Committed:
        """The offset to commit, once it is known where the records of this commit end."""
        bookmark = msgspec.structs.replace(self.bookmark, ends=self.bookmark.ends.advance(ends))
        return Committed(self.next_offset, bookmark.text())


class Intake(Protocol):
    """The group member that reads the input topic."""

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> list[Record]:
        """Up to `records_max` records of an assigned partition, none if the time passes without. May be cancelled."""

    async def confirm_membership(self) -> None:
        """Ask the group whether this worker is still one of its members. Raises Unreachable if it does not say so."""

    async def committed(self, partition: int) -> Committed | None:
        """Where the group stands, None if it never committed."""

    async def topic_id(self) -> str:
        """The id of the input topic, which changes when it is deleted and created again; empty if not known."""

    async def seek(self, partition: int, next_offset: int | None) -> int:
        """Continue from an offset, None for the beginning; returns where that is.

        An offset that the partition does not hold, any more or yet, gives the beginning as well.
        """

    async def lag_records(self, partition: int) -> int | None:
        """Offsets between the position and the end of the partition, as the last fetch had it; None if not known."""

    async def position(self, partition: int) -> int | None:
        """The offset that is read next, past the markers of transactions; None if it is not known yet."""


class LogEnds(Protocol):
    """Asks the brokers that lead the partitions of the input where these end."""

    async def find(self, partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        """The end of each partition, or a sentence on why it is not known. Bounded in time; raises nothing."""


class StateLog(Protocol):
    """The reader of the state topic."""

    def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        """The partition from an offset (0 for all of it) to its last stable offset as of the start of reading."""


class Publisher(Protocol):
    """A lane's producer."""

    async def open(self) -> None:
        """Take over the partition: fences an earlier owner and settles its transaction."""

    async def settlement(self) -> Settlement:
        """How far the brokers have decided over what this lane's transactions wrote, up to now."""

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        """Whether an output holds a committed record of this lane at an offset or after it."""

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """Decide over what hangs."""

    async def confirm(self) -> None:
        """Make sure that the last commit was decided everywhere. Raises Unreachable if it hangs."""

    async def commit(self, effects: Effects) -> Ends:
        """Publish all effects and the offset as one, after `confirm`; returns where they end in the outputs."""

    async def close(self) -> None:
        """Close the producer, within a bounded time. Never raises."""


Activity = Literal["fetch_wait", "process", "commit", "restore"]
ACTIVITIES: Final[tuple[Activity, ...]] = get_args(Activity)
Rebalance = Literal["assigned", "revoked"]


class Telemetry(Protocol):
    """Where the runtime tells how it is doing: metrics and life events. Called from the event loop; must not block."""

    def committed(self, partition: int, tally: Tally, duration_s: float, lag_records: int | None) -> None:
        """A commit succeeded: count what it held."""

    def commit_failed(self, partition: int, error: WorldError) -> None:
        """A commit or an opening failed and will be tried again."""

    def restored(self, partition: int, store: StateStore, duration_s: float) -> None:
        """A lane has restored its state and opens its gate. The store may be read until `lane_closed`."""

    def restoring(self, partition: int, remaining: int) -> None:
        """So many records of the state topic are left to restore."""

    def transaction_repaired(self, partition: int, verdict: Verdict, hanging: Sequence[str]) -> None:
        """Brokers had lost the end of the lane's last transaction in these topics, and have it again."""

    def offset_reset(self, partition: int, wanted: int, at: int) -> None:
        """The committed offset is not in the partition: a lane starts at its beginning."""

    def lagging(self, partition: int, lag: Lag) -> None:
        """How far a lane is from the end of its partition, as its leader says."""

    def stands_still(self, partition: int, standstill: Standstill, todo: str) -> None:
        """A partition does not move, though its log grows or may grow; `todo` says what to do."""

    def moves_again(self, partition: int) -> None:
        """What kept a partition from moving is over."""

    def lane_closed(self, partition: int, reason: str) -> None:
        """A lane is gone: its series must go too."""

    def breaker_opened(self, partition: int, cause: str) -> None:
        """A lane stopped consuming because of too many dead letters."""

    def rebalanced(self, kind: Rebalance, partitions: Sequence[int]) -> None:
        """The group gave partitions to this worker or took them away."""

    def spent(self, activity: Activity, seconds: float) -> None:
        """Loop time by what it was spent on."""


class World(Struct, frozen=True):
    """What a lane needs of the outside."""

    intake: Intake
    state_log: StateLog
    new_publisher: Callable[[int], Publisher]
    telemetry: Telemetry
    on_commit: Callable[[Effects], None]
    """Called with what a lane has committed, as soon as that is certain."""
    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    version: str
