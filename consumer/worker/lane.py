"""A lane: everything that belongs to one assigned input partition, like a task of Kafka Streams. Open, run, close.

1. A lane opens in this order: the group confirms that the worker is a member; the producer fences every earlier owner;
   what lost markers left undecided is decided; the committed offset is read; the states are restored to the end of
   their topic. In any other order the offset or the states may be stale, and a worker that the group has given up
   would fence the owner.
2. One commit holds the effects of whole records only, and the offset after the last of them. Nothing is consumed
   while it is in flight.
3. A failed commit leaves nothing behind: what is staged is dropped, the producer is closed at once, for it might still
   send, and the lane opens again. So it does when the engine has failed.
4. A commit that failed may have succeeded and lost its answer: what it held is counted once the offset shows it.
5. After a fence the lane touches nothing until it is assigned again, or until so much time has passed without a
   revocation that it must still be the owner (the broker had aborted its transaction).
6. Once it is asked to stop, it commits what is staged and begins nothing new.
7. While the states of the worker take all the memory that they may, it reads neither records nor states.
8. The committed offset and the states have to be those of one commit, and not of an older one than the lane knows of.
   Otherwise the lane asks again: a coordinator that was killed with all its replicas answers with an older offset
   until these agree, and a leader that was suspended and replaced answers with an older end until it learns of that.
9. A batch that is too large to be read stops the lane for good. Everything before it is committed, nothing after it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from consumer.core.record import Record
from consumer.engine.protocol import Engine, EngineFailedError
from consumer.settings import Settings
from consumer.worker import offset_metadata
from consumer.worker.commit_ledger import InFlight, is_other_topic
from consumer.worker.commit_policy import CommitPolicy
from consumer.worker.lane_status import LaneStatus
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.ports import (
    Committed,
    ConfigurationError,
    Effects,
    FencedError,
    LaneContext,
    LaneRestored,
    Publisher,
    RetriableError,
    UnreadableError,
)
from consumer.worker.state_restore import StateRestore
from consumer.worker.transaction_repair import TransactionRepair

IDLE_S = 1.0
"""How long an idle lane waits for records."""
MARKERS_S = 10.0
"""How long an idle lane waits before it commits a position that moved over transaction markers only."""
_BACKOFF_S = 1.0


class Lane(LaneStatus):
    """One input partition while it is assigned to this worker."""

    def __init__(
        self,
        partition: int,
        engine: Engine,
        settings: Settings,
        policy: Callable[[], CommitPolicy],
        context: LaneContext,
        others_move: Callable[[], bool] = lambda: False,
        memory_problem: Callable[[], str] = str,
    ) -> None:
        super().__init__(partition, engine, context.monotonic_s())
        self._settings = settings
        self._is_atomic = settings.delivery == "exactly_once"
        self._policy = policy
        self._others_move = others_move
        self._memory_problem = memory_problem
        """Says why there is no memory for more states; empty while there is."""
        self._context = context
        self._restore = StateRestore(partition, engine.states, context.state_log, settings)
        self._repair = TransactionRepair(partition, settings, context.telemetry, self._progress)
        self._stop = asyncio.Event()
        self._waiting: asyncio.Future[Sequence[Record]] | None = None
        self._failing_since_s: float | None = None
        self._catching_up = False
        """Whether the last fetch was full, so that more records wait."""
        self._committed_s = context.monotonic_s()
        """When it committed last."""
        self._is_topic_recreated = False

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the lane to commit what is staged and end. Never waits, may be called from a callback."""
        self._stop.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def note_topic_id(self, topic_id: str) -> None:
        """Compare the topic's current id: if the topic was recreated, the lane opens again."""
        if self.is_open and is_other_topic(self._ledger.topic_id, topic_id):
            self._is_topic_recreated = True

    async def run(self) -> None:
        """Consume until stopped.

        Raises ConfigurationError for what only an operator can fix, and when retrying took too long while no other lane
        moves.
        """
        try:
            while not self._stop.is_set():
                await self._live_once()
        finally:
            self.phase = "closed"

    async def _live_once(self) -> None:
        """Open, and consume until the first failure or the stop, with one producer."""
        publisher = self._context.new_publisher(self.partition)
        try:
            try:
                await self._open(publisher)
                await self._consume(publisher)
            finally:
                self.engine.rollback()
                await publisher.close()
        except RetriableError as error:
            await self._fail(error)
        except EngineFailedError as error:
            await self._fail(RetriableError(str(error)))
        except UnreadableError as error:  # what the lane has to read before it is open
            self.phase = "failing"
            self._note_unreadable(error)
            await self._wait_for_stop()
        except FencedError as error:
            self.phase = "fenced"
            self._failure = str(error)
            self._ledger = self._ledger.fence()
            self._context.telemetry.commit_failed(self.partition, error)
            await self._pause(self._settings.session_timeout_ms / 1_000)

    async def _fail(self, error: RetriableError) -> None:
        self.phase = "failing"
        self._failure = str(error)
        now_s = self._context.monotonic_s()
        self._context.telemetry.commit_failed(self.partition, error)
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if now_s - self._failing_since_s > self._settings.tuning.retry_s_max and not self._others_move():
            raise ConfigurationError(
                f"partition {self.partition} could not be served for {self._settings.tuning.retry_s_max:g} s: {error}"
            ) from error
        await self._pause(_BACKOFF_S)

    async def _open(self, publisher: Publisher) -> None:
        self.phase = "opening"
        started_s = self._context.monotonic_s()
        await self._context.input_consumer.confirm_membership()
        self._progress()
        await publisher.open()
        self._progress()
        self._ledger = self._ledger.read_from(await self._context.input_consumer.topic_id())
        self._progress()
        settled = await self._repair.settle(publisher, self._ask_committed, self._ledger.newest_offset)
        self._progress()
        self._reconcile(settled.committed)
        metadata = None if settled.committed is None else offset_metadata.parse(settled.committed.metadata)
        await self._seek(settled.committed, metadata)
        if not await self._restore_states(metadata):
            return
        self._ledger = self._ledger.open(settled.stable)
        duration_s = self._context.monotonic_s() - started_s
        self._context.telemetry.spent("restore", duration_s)
        states = self.engine.states
        self.has_opened = True
        self._context.telemetry.restored(self.partition, LaneRestored(len(states), states.committed_bytes, duration_s))
        self.phase = "running"

    async def _ask_committed(self) -> Committed | None:
        return await self._context.input_consumer.committed(self.partition)

    def _reconcile(self, committed: Committed | None) -> None:
        """Count what the commit in flight held if it did succeed, and forget it otherwise."""
        offset = None if committed is None else committed.next_offset
        self._ledger, succeeded = self._ledger.reconcile(offset)
        self.engine.settle_breaker(is_committed=succeeded is not None)
        if succeeded is not None:
            duration_s = self._context.monotonic_s() - succeeded.started_s
            self._context.telemetry.committed(self.partition, succeeded.stats, duration_s, None)

    async def _seek(self, committed: Committed | None, metadata: OffsetMetadata | None) -> None:
        """Continue from the committed offset, or from the beginning without one that is of this topic."""
        wanted = None if committed is None else committed.next_offset
        is_recreated = metadata is not None and is_other_topic(metadata.topic_id, self._ledger.topic_id)
        next_offset = await self._context.input_consumer.seek(self.partition, None if is_recreated else wanted)
        self._progress()
        if wanted is not None and (is_recreated or next_offset != wanted):
            self._context.telemetry.offset_reset(self.partition, wanted, next_offset)
        self._ledger = self._ledger.resume(next_offset)
        self.engine.start(next_offset, None if metadata is None else metadata.stream_ms)

    async def _restore_states(self, metadata: OffsetMetadata | None) -> bool:
        """Bring the states to the end of the state topic; returns whether they got there before a stop."""
        async with contextlib.aclosing(self._restore.read()) as left:
            async for remaining in left:
                if self._stop.is_set():
                    return False
                self._progress()
                self.restore_records = remaining
                self._context.telemetry.restoring(self.partition, remaining)
                await self._wait_for_memory()
        self._restore.verify(metadata)
        return True

    async def _consume(self, publisher: Publisher) -> None:
        while not self._stop.is_set():
            if self._is_topic_recreated:
                self._is_topic_recreated = False
                raise RetriableError(
                    "the input topic was deleted and created again: the committed offset is of the old one"
                )
            if self.engine.open_reason:
                await self._block(publisher)
                break
            if self._is_commit_due():
                await self._commit(publisher)
                continue
            if self._memory_problem():
                await self._stay_full(publisher)
                continue
            now_s = self._context.monotonic_s()
            try:
                records = await self._fetch(self._policy().poll_timeout_s(self.engine.staged, now_s, IDLE_S))
            except UnreadableError as error:
                await self._block(publisher, error)
                break
            self._catching_up = len(records) == self._settings.fetch_records_max
            self._progress()
            if not records and not self.engine.staged.records:
                await publisher.confirm()
                self._failing_since_s = None
                await self._pass_markers(publisher)
            await self._process(records, publisher)
        await self._commit_staged(publisher)

    def _is_commit_due(self) -> bool:
        return self._policy().is_due(self.engine.staged, self._context.monotonic_s(), catching_up=self._catching_up)

    async def _pass_markers(self, publisher: Publisher) -> None:
        """Commit a position that has moved over markers of transactions.

        Retention deletes them like records, and an offset before them would look as if records had been lost.
        """
        now_s = self._context.monotonic_s()
        if self._stop.is_set() or now_s - self._committed_s < MARKERS_S:  # a fetch that a stop cancels may lose records
            return
        position = await self._context.input_consumer.position(self.partition)
        if position is not None and self.next_offset is not None and position > self.next_offset:
            self.engine.skip_to(position)
            await self._commit(publisher)

    async def _fetch(self, poll_timeout_s: float) -> Sequence[Record]:
        started_s = self._context.monotonic_s()
        self._waiting = asyncio.ensure_future(
            self._context.input_consumer.fetch(self.partition, self._settings.fetch_records_max, poll_timeout_s)
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
            self._context.telemetry.spent("fetch_wait", self._context.monotonic_s() - started_s)

    async def _process(self, records: Sequence[Record], publisher: Publisher) -> None:
        """Process records in slices; between them the loop gets its turn, and a commit that is due happens."""
        if len(records) == 1 and records[0].unread:
            self._context.telemetry.passed_over(self.partition, records[0])
        slice_s = self._settings.tuning.slice_ms_max / 1_000
        now_ms = self._context.wall_ms()
        index = 0
        while index < len(records):
            if self._memory_problem():
                await self._stay_full(publisher)
                if self._stop.is_set() or self._is_topic_recreated:
                    return
            done = self.engine.process(records, index, slice_s, now_s=self._context.monotonic_s(), now_ms=now_ms)
            index = done.next_index
            self._context.telemetry.spent("process", done.seconds)
            if done.stopped_by != "time":
                return
            await asyncio.sleep(0)
            if self._stop.is_set():
                return
            if self._is_commit_due():
                await self._commit(publisher)

    async def _commit_staged(self, publisher: Publisher) -> None:
        """Commit unless nothing is staged."""
        if self.engine.staged.records:
            await self._commit(publisher)

    async def _commit(self, publisher: Publisher) -> None:
        effects = self._effects()
        started_s = self._context.monotonic_s()
        stats = self.engine.stats
        self._ledger = self._ledger.begin(InFlight(effects.next_offset, stats, started_s))
        ends = await publisher.commit(effects)
        self._ledger = self._ledger.succeed(ends)
        self._context.on_commit(effects, stats)
        self._restore.verify_written(ends.state)
        self._committed_s = self._context.monotonic_s()
        self.engine.commit(ends.state)
        self._failing_since_s = None
        self._progress()
        duration_s = self._context.monotonic_s() - started_s
        self._context.telemetry.spent("commit", duration_s)
        lag_records = await self._context.input_consumer.lag_records(self.partition)
        if lag_records is not None:
            self.lag_records = lag_records
        self._context.telemetry.committed(self.partition, stats, duration_s, lag_records)

    def _effects(self) -> Effects:
        """All that is staged, with what goes into the offset's metadata."""
        engine = self.engine
        assert engine.next_offset is not None
        metadata = OffsetMetadata(engine.stream_ms, topic_id=self._ledger.topic_id)
        if self._is_atomic:
            ends = self._ledger.ends.advance(Ends(engine.states.state_offset))
            metadata = OffsetMetadata(engine.stream_ms, engine.count_staged(), ends, self._ledger.topic_id)
        outputs = engine.outputs()
        return Effects(
            next_offset=engine.next_offset,
            metadata=metadata,
            states=outputs.states,
            transitions=outputs.transitions,
            dead_letters=outputs.dead_letters,
        )

    async def _block(self, publisher: Publisher, unreadable: UnreadableError | None = None) -> None:
        """Commit what is staged and consume no more until the process is restarted.

        The breaker is open, or a batch cannot be read.
        """
        await self._commit_staged(publisher)
        self.phase = "blocked"
        if unreadable is None:
            self._context.telemetry.breaker_opened(self.partition, self.engine.open_reason)
        else:
            self._note_unreadable(unreadable)
        await publisher.confirm()
        await self._wait_for_stop()

    def _note_unreadable(self, error: UnreadableError) -> None:
        self._failure = self._unreadable = str(error)
        self._context.telemetry.unreadable(self.partition, error)

    async def _wait_for_stop(self) -> None:
        while not self._stop.is_set():
            await self._pause(IDLE_S)

    async def _stay_full(self, publisher: Publisher) -> None:
        """There is no memory for more states: commit what is staged and consume nothing until there is."""
        await self._commit_staged(publisher)
        await publisher.confirm()
        self.phase = "full"
        await self._wait_for_memory()
        self.phase = "running"

    async def _wait_for_memory(self) -> None:
        while not (self._stop.is_set() or self._is_topic_recreated):
            self._waits_for_memory = self._memory_problem()
            if not self._waits_for_memory:
                break
            await self._pause(IDLE_S)
        self._waits_for_memory = ""

    async def _pause(self, most_s: float) -> None:
        """Wait for the stop, in turns short enough to count as progress."""
        until_s = self._context.monotonic_s() + most_s
        while not self._stop.is_set() and (left_s := until_s - self._context.monotonic_s()) > 0:
            self._progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(left_s, IDLE_S))

    def _progress(self) -> None:
        self.last_progress_s = self._context.monotonic_s()
