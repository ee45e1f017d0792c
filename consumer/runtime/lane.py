"""A lane: everything that belongs to one assigned input partition. Gate -> open -> run -> close.

1. The gate is shut until the lane is open: its producer has fenced every earlier owner, then what a lost marker left
   undecided was decided, then the committed offset was read, then the state was restored to the end of its log. In any
   other order the offset or the state may be stale.
   Before all that the group has to say that the worker is a member: one that it has given up would fence the owner.
2. One commit holds the effects of whole records only, and the offset after the last of them. Nothing is consumed
   while it is under way.
3. A failed commit leaves nothing: what is staged is dropped, the producer is closed at once, for it might still send,
   and the lane opens again.
4. A commit that failed may have succeeded, its answer lost: what it held is counted when the offset says so.
5. After a fence the lane touches nothing until it is assigned again, or until so much time has passed without a
   revocation that it must still be the owner (the broker had aborted its transaction).
6. Once stopping, it commits what is staged and begins nothing new.
7. The committed offset and the state have to be those of one commit, and not of an older one than the lane knows of. If
   not they are asked for again: a coordinator that was killed with all its replicas answers with an older offset, until
   these have agreed on how far they were, and a leader that was suspended and replaced with an older end, until it
   learns of that.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

from consumer.core.record import Record
from consumer.runtime import bookmark
from consumer.runtime.bookmark import Bookmark, Ends
from consumer.runtime.breaker import Breaker
from consumer.runtime.commit_policy import CommitPolicy
from consumer.runtime.ports import (
    Committed,
    Fenced,
    Misfit,
    Publisher,
    Unreachable,
    World,
)
from consumer.runtime.settings import Settings
from consumer.runtime.staging import Staging
from consumer.runtime.standstill import Standstill
from consumer.runtime.state_restore import StateRestore
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally
from consumer.runtime.transaction_repair import TransactionRepair

Phase = Literal["opening", "running", "blocked", "fenced", "failing", "closed"]

IDLE_S = 1.0
"""How long a lane waits for records before it looks around."""
MARKERS_S = 10.0
"""How long an idle lane leaves a position uncommitted that moved over markers of transactions only."""
_BACKOFF_S = 1.0


class Lane:
    """One input partition while it is assigned to this worker."""

    def __init__(
        self,
        partition: int,
        store: StateStore,
        settings: Settings,
        policy: Callable[[], CommitPolicy],
        world: World,
        others_move: Callable[[], bool] = lambda: False,
    ) -> None:
        self.partition = partition
        self.store = store
        self.phase: Phase = "opening"
        self.breaker = Breaker(settings)
        self.last_progress_s = world.monotonic_s()
        self.committed_offset: int | None = None
        """Where the lane would go on if it opened again; None as long as it does not know."""
        self.lag_records: int | None = None
        """Between its position and the end of the partition, as known last; None as long as it is not."""
        self.restore_records: int | None = None
        """Records of the state topic that are left to restore; None before it began to."""
        self.standstill: Standstill | None = None
        """That of its partition, as long as it lasts."""
        self._settings = settings
        self._is_atomic = settings.delivery == "exactly_once"
        self._policy = policy
        self._others_move = others_move
        self._world = world
        self._staging = Staging(store, self.breaker, settings, world.version, world.monotonic_s)
        self._state = StateRestore(partition, store, world.state_log, settings)
        self._repair = TransactionRepair(partition, settings, world.telemetry, self._progress)
        self._ends = Ends()
        """Where the outputs end with what is committed; the store knows it of the state."""
        self._stop = asyncio.Event()
        self._waiting: asyncio.Future[list[Record]] | None = None
        self._failing_since_s: float | None = None
        self._failure = ""
        """What it failed by last."""
        self._catching_up = False
        """Whether the last fetch gave as much as it may: there is more."""
        self._committed_s = world.monotonic_s()
        """When it committed last."""
        self._last_committed: int | None = None
        """The newest offset that this lane knows to be committed."""
        self._unanswered: tuple[int, Tally, float] | None = None
        """The offset, the counts and the begin of a commit that was not heard to have succeeded."""
        self._topic_id = ""
        """The id of the input topic that it reads."""
        self._is_topic_replaced = False

    def __repr__(self) -> str:
        return f"<Lane {self.partition} {self.phase}, {len(self.store)} conversations, next {self.next_offset}>"

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    @property
    def is_open(self) -> bool:
        """Whether it owns the partition and its store holds all that is committed, as far as it can know."""
        return self.phase in {"running", "blocked"}

    @property
    def is_reading(self) -> bool:
        """Whether it reads records."""
        return self.phase == "running"

    @property
    def problem(self) -> str:
        """What keeps the lane from reading; empty if nothing does or nothing is known to."""
        if self.phase == "blocked":
            return self.breaker.open_because
        if self.is_reading:
            return ""
        if self.phase == "opening" and self.restore_records:
            return f"its state is restored, {self.restore_records} records are left"
        return self._failure

    @property
    def next_offset(self) -> int | None:
        """The offset after the last record that was processed; None as long as the lane has not opened."""
        return self._staging.next_offset

    def stop(self) -> None:
        """Ask the lane to commit what is staged and end. Never waits, may be called from a callback."""
        self._stop.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def note_topic_id(self, topic_id: str) -> None:
        """Take notice of the topic's current id: if the topic was recreated, the lane opens again."""
        if self.is_open and self._is_of_another(self._topic_id, topic_id):
            self._is_topic_replaced = True

    @staticmethod
    def _is_of_another(known_id: str, topic_id: str) -> bool:
        """Whether a topic is another one than that of an id; not where one of them is not known."""
        return bool(known_id and topic_id) and known_id != topic_id

    async def run(self) -> None:
        """Consume until stopped.

        Raises Misfit for what only an operator can fix, and when retrying took too long and no other lane moves.
        """
        try:
            while not self._stop.is_set():
                await self._live_once()
        finally:
            self.phase = "closed"

    async def _live_once(self) -> None:
        """One life of the lane's producer, from opening to the first failure or the stop."""
        publisher = self._world.new_publisher(self.partition)
        try:
            try:
                await self._open(publisher)
                await self._consume(publisher)
            finally:
                self.store.drop()
                self._staging.clear()
                await publisher.close()
        except Unreachable as error:
            await self._fail(error)
        except Fenced as error:
            self.phase = "fenced"
            self._failure = str(error)
            self._unanswered = None
            self._world.telemetry.commit_failed(self.partition, error)
            await self._pause(self._settings.session_timeout_ms / 1_000)

    async def _fail(self, error: Unreachable) -> None:
        self.phase = "failing"
        self._failure = str(error)
        now_s = self._world.monotonic_s()
        self._world.telemetry.commit_failed(self.partition, error)
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if now_s - self._failing_since_s > self._settings.retry_s_max and not self._others_move():
            raise Misfit(
                f"partition {self.partition} could not be served for {self._settings.retry_s_max:g} s "
                f"(CC_RETRY_S_MAX): {error}"
            ) from error
        await self._pause(_BACKOFF_S)

    async def _open(self, publisher: Publisher) -> None:
        self.phase = "opening"
        started_s = self._world.monotonic_s()
        await self._world.intake.confirm_membership()
        self._progress()
        await publisher.open()
        self._progress()
        topic_id = await self._world.intake.topic_id()
        self._progress()
        if self._is_of_another(self._topic_id, topic_id):
            self._last_committed = None  # brokers delete the offsets with the topic
        self._topic_id = topic_id
        settled = await self._repair.settle(publisher, self._ask_committed, self._last_committed)
        self._progress()
        committed = settled.committed
        wanted = None if committed is None else committed.next_offset
        if self._last_committed is not None and (wanted is None or wanted < self._last_committed):
            raise Unreachable(f"reading the committed offset: {wanted} is older than {self._last_committed}")
        self._last_committed = wanted
        self._settle_unanswered(committed)
        marked = None if committed is None else bookmark.parse(committed.metadata)
        is_of_another = marked is not None and self._is_of_another(marked.topic_id, topic_id)
        next_offset = await self._world.intake.seek(self.partition, None if is_of_another else wanted)
        self._progress()
        if wanted is not None and (is_of_another or next_offset != wanted):
            self._world.telemetry.offset_reset(self.partition, wanted, next_offset)
        self.committed_offset = self._staging.next_offset = next_offset
        self._staging.stream_ms = None if marked is None else marked.stream_ms
        if not await self._restore(marked):
            return
        self._ends = settled.stable
        duration_s = self._world.monotonic_s() - started_s
        self._world.telemetry.spent("restore", duration_s)
        self._world.telemetry.restored(self.partition, self.store, duration_s)
        self.phase = "running"

    async def _ask_committed(self) -> Committed | None:
        return await self._world.intake.committed(self.partition)

    def _settle_unanswered(self, committed: Committed | None) -> None:
        """Count what the last commit held if it did succeed, and forget it otherwise."""
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is None or committed is None or committed.next_offset != unanswered[0]:
            self.breaker.rollback()
            return
        self.breaker.commit()
        _, tally, started_s = unanswered
        self._world.telemetry.committed(self.partition, tally, self._world.monotonic_s() - started_s, None)

    async def _restore(self, marked: Bookmark | None) -> bool:
        """Bring the store to the end of the state topic; returns whether it got there before a stop."""
        async with contextlib.aclosing(self._state.read()) as left:
            async for remaining in left:
                if self._stop.is_set():
                    return False
                self._progress()
                self.restore_records = remaining
                self._world.telemetry.restoring(self.partition, remaining)
        self._state.verify(marked)
        return True

    async def _consume(self, publisher: Publisher) -> None:
        while not self._stop.is_set():
            if self._is_topic_replaced:
                self._is_topic_replaced = False
                raise Unreachable(
                    "the input topic was deleted and created again: the committed offset is of the old one"
                )
            if self.breaker.open_because:
                await self._block(publisher)
                break
            now_s = self._world.monotonic_s()
            if self._policy().is_due(self._staging.staged, now_s, catching_up=self._catching_up):
                await self._commit(publisher)
                continue
            records = await self._fetch(self._policy().patience_s(self._staging.staged, now_s, IDLE_S))
            self._catching_up = len(records) == self._settings.fetch_records_max
            self._progress()
            if not records and not self._staging.staged.records:
                await publisher.confirm()
                self._failing_since_s = None
                await self._pass_markers(publisher)
            await self._process(records, publisher)
        if self._staging.staged.records:
            await self._commit(publisher)

    async def _pass_markers(self, publisher: Publisher) -> None:
        """Commit a position that has moved over markers of transactions.

        Retention deletes them like records, and an offset before them would look as if records had been lost.
        """
        now_s = self._world.monotonic_s()
        if self._stop.is_set() or now_s - self._committed_s < MARKERS_S:  # a fetch that a stop cancels may lose records
            return
        position = await self._world.intake.position(self.partition)
        if position is not None and self.next_offset is not None and position > self.next_offset:
            self._staging.next_offset = position
            await self._commit(publisher)

    async def _fetch(self, patience_s: float) -> list[Record]:
        started_s = self._world.monotonic_s()
        self._waiting = asyncio.ensure_future(
            self._world.intake.fetch(self.partition, self._settings.fetch_records_max, patience_s)
        )
        try:
            return await self._waiting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the fetch that was awaited is cancelled with it
                raise
            return []
        finally:
            self._waiting = None
            self._world.telemetry.spent("fetch_wait", self._world.monotonic_s() - started_s)

    async def _process(self, records: list[Record], publisher: Publisher) -> None:
        """Step through records in slices; between them the loop gets its turn, and a commit that is due happens."""
        slice_s = self._settings.slice_ms_max / 1_000
        now_ms = self._world.wall_ms()
        started_s = time.perf_counter()
        for record in records:
            self._staging.take(record, now_ms)
            if self.breaker.open_because:
                break
            elapsed_s = time.perf_counter() - started_s
            if elapsed_s >= slice_s:
                self._world.telemetry.spent("process", elapsed_s)
                await asyncio.sleep(0)
                if self._stop.is_set():
                    return
                now_s = self._world.monotonic_s()
                if self._policy().is_due(self._staging.staged, now_s, catching_up=self._catching_up):
                    await self._commit(publisher)
                started_s = time.perf_counter()
        self._world.telemetry.spent("process", time.perf_counter() - started_s)

    async def _commit(self, publisher: Publisher) -> None:
        effects, tally = self._staging.effects(self._bookmark()), self._staging.tally
        started_s = self._world.monotonic_s()
        self._unanswered = (effects.next_offset, tally, started_s)
        ends = await publisher.commit(effects)
        self._unanswered = None
        self._world.on_commit(effects)
        self._state.verify_written(ends.state)
        self.committed_offset = self._last_committed = effects.next_offset
        self._committed_s = self._world.monotonic_s()
        self.store.merge(ends.state)
        self._ends = self._ends.advance(ends)
        self.breaker.commit()
        self._staging.clear()
        self._failing_since_s = None
        self._progress()
        duration_s = self._world.monotonic_s() - started_s
        self._world.telemetry.spent("commit", duration_s)
        lag_records = await self._world.intake.lag_records(self.partition)
        if lag_records is not None:
            self.lag_records = lag_records
        self._world.telemetry.committed(self.partition, tally, duration_s, lag_records)

    def _bookmark(self) -> Bookmark:
        if not self._is_atomic:
            return Bookmark(self._staging.stream_ms, topic_id=self._topic_id)
        ends = self._ends.advance(Ends(self.store.state_offset))
        return Bookmark(self._staging.stream_ms, self.store.count_staged(), ends, self._topic_id)

    async def _block(self, publisher: Publisher) -> None:
        """The breaker is open: commit what came before it and consume no more until the process is restarted."""
        if self._staging.staged.records:
            await self._commit(publisher)
        self.phase = "blocked"
        self._world.telemetry.breaker_opened(self.partition, self.breaker.open_because)
        await publisher.confirm()
        while not self._stop.is_set():
            await self._pause(IDLE_S)

    async def _pause(self, most_s: float) -> None:
        """Wait for the stop, in turns short enough to count as progress."""
        until_s = self._world.monotonic_s() + most_s
        while not self._stop.is_set() and (left_s := until_s - self._world.monotonic_s()) > 0:
            self._progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(left_s, IDLE_S))

    def _progress(self) -> None:
        self.last_progress_s = self._world.monotonic_s()
