"""The worker: the lanes of one process, as the consumer group assigns them.

1. There is at most one lane per partition; its task is in `_tasks` for as long as it runs.
2. The callbacks of the group record and bound: they never wait for a fetch, and give a lane a limited time to commit.
   A lane that needs longer is cancelled; its producer's fence keeps whatever it still tries from being seen.
3. State of a lane that ended in order is kept for a while: if the partition comes back, only what was written since
   is read. It goes first when memory is short.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from consumer.engine.protocol import Engine, States
from consumer.settings import Settings
from consumer.worker.commit_policy import CommitPolicy
from consumer.worker.lane import Lane
from consumer.worker.lane_status import AwaitedPartition
from consumer.worker.ports import ConfigurationError, ExternalError, LaneContext, LaneEnd
from consumer.worker.state_memory import StateMemory, measure

KEPT_S = 600.0
"""How long the state of a revoked partition stays in memory. Far below the time for which tombstones are kept."""
_SHOWN_MAX: Final = 5


class Outage(Struct, frozen=True):
    """A time in which nothing comes from Kafka."""

    reason: str
    since_ms: int
    """When it was noticed, in epoch milliseconds."""


class Worker:
    """Serves the partitions assigned to this process."""

    def __init__(self, settings: Settings, context: LaneContext, state_bytes_max: int = 0) -> None:
        self.lanes: dict[int, Lane] = {}
        self.awaited: dict[int, AwaitedPartition] = {}
        """The partitions that were revoked, until the group assigns partitions again."""
        self.outage: Outage | None = None
        """Since when and why Kafka does not have this worker in the group, None while it does."""
        self._settings = settings
        self._context = context
        self._state_bytes_max = state_bytes_max
        """What the states of all lanes may take; 0 for no limit."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._kept: dict[int, tuple[Engine, asyncio.TimerHandle]] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined = False
        self._draining = False

    def assigned(self, partitions: Sequence[int]) -> None:
        """The group assigned partitions to this worker: start their lanes."""
        self._joined = True
        self._context.telemetry.rebalanced("assigned", partitions)
        awaited = dict(self.awaited)
        self.awaited.clear()
        if self._draining:
            return
        for partition in partitions:
            if partition in self._tasks:
                continue
            lane = Lane(
                partition,
                self._engine(partition),
                self._settings,
                self._policy,
                self._context,
                self._has_moving_lane,
                self._memory_problem,
            )
            lane.standstill = awaited[partition].standstill if partition in awaited else None
            self.lanes[partition] = lane
            self._tasks[partition] = asyncio.create_task(lane.run(), name=f"lane-{partition}")
            self._tasks[partition].add_done_callback(self._note_end)

    async def revoked(self, partitions: Sequence[int]) -> None:
        """The group revoked partitions: their lanes commit what is staged, within half the rebalance timeout."""
        self._context.telemetry.rebalanced("revoked", partitions)
        revoked = {partition: self.lanes[partition] for partition in partitions if partition in self.lanes}
        await self._close(partitions, self._settings.rebalance_timeout_ms / 2_000, "revoked")
        if not self._draining:
            self.awaited.update({partition: lane.to_awaited() for partition, lane in revoked.items()})

    async def failure(self) -> None:
        """Wait until something goes wrong that ends the process; raises it."""
        await asyncio.shield(self._failure)

    def note_connection(self, fault: ExternalError | None) -> None:
        """Note what keeps the group member from Kafka at the moment, None if nothing does."""
        if fault is None:
            self.outage = None
        else:
            since_ms = self._context.wall_ms() if self.outage is None else self.outage.since_ms
            self.outage = Outage(str(fault), since_ms)

    def fail(self, error: Exception) -> None:
        """End the process with an error that no lane would notice."""
        if not self._failure.done():
            self._failure.set_exception(error)

    async def drain(self) -> bool:
        """Commit what is staged and end all lanes within `drain_s`; returns whether all ended in time."""
        self._draining = True
        return await self._close(list(self.lanes), self._settings.drain_s, "drained")

    def states(self) -> dict[int, States]:
        """The states of the lanes that have opened, by partition."""
        return {partition: lane.engine.states for partition, lane in self.lanes.items() if lane.has_opened}

    def state_memory(self) -> StateMemory:
        """What all states take, those that are being restored or kept of a revoked partition included."""
        engines = [*(lane.engine for lane in self.lanes.values()), *(engine for engine, _ in self._kept.values())]
        return StateMemory(sum(map(measure, engines)), self._state_bytes_max)

    def readiness_problems(self) -> dict[str, str | None]:
        """What keeps the worker from being ready, by check; None where nothing does."""
        opening = [lane.partition for lane in self.lanes.values() if not lane.is_open]
        blocked = {lane.partition: lane.problem for lane in self.lanes.values() if lane.phase == "blocked"}
        breaker = {number: why for number, why in blocked.items() if self.lanes[number].engine.open_reason}
        unreadable = [why for number, why in blocked.items() if number not in breaker]
        memory = self.state_memory()
        lanes: list[Lane | AwaitedPartition] = [*self.lanes.values(), *self.awaited.values()]
        still = [f"partition {lane.partition}: {lane.standstill.message}" for lane in lanes if lane.standstill]
        if len(still) > _SHOWN_MAX:
            still[_SHOWN_MAX:] = [f"and {len(still) - _SHOWN_MAX} more"]
        return {
            "group": None if self._joined else "has not joined the consumer group yet",
            "connection": None if self.outage is None else self.outage.reason,
            "standstill": "; ".join(still) or None,
            "lanes": f"partitions {opening} are not open" if opening else None,
            "breaker": f"too many dead letters: {breaker}" if breaker else None,
            "batches": "; ".join(unreadable) or None,
            "memory": memory.sentence if memory.is_near else None,
            "draining": "shutting down" if self._draining else None,
        }

    def liveness_problems(self) -> dict[str, str | None]:
        """What makes no progress any more, by check. Waiting for a broker that does not answer is progress."""
        now_s = self._context.monotonic_s()
        limit_s = 2 * self._settings.commit_timeout_s + self._settings.tuning.request_timeout_ms / 1_000
        stuck = [lane.partition for lane in self.lanes.values() if now_s - lane.last_progress_s > limit_s]
        return {"lanes": f"partitions {stuck} made no progress for {limit_s:g} s" if stuck else None}

    def _has_moving_lane(self) -> bool:
        return any(lane.is_reading and lane.standstill is None for lane in self.lanes.values())

    def _memory_problem(self) -> str:
        """Why no lane may read on, empty if it may. States that are only kept are forgotten first."""
        if not self._state_bytes_max:
            return ""
        memory = self.state_memory()
        if memory.is_full and self._kept:
            for _, forgetting in self._kept.values():
                forgetting.cancel()
            self._kept.clear()
            memory = self.state_memory()
        return memory.sentence if memory.is_full else ""

    def _policy(self) -> CommitPolicy:
        return CommitPolicy.of(self._settings, len(self.lanes))

    async def _close(self, partitions: Sequence[int], timeout_s: float, reason: LaneEnd) -> bool:
        closing = {partition: self._tasks[partition] for partition in partitions if partition in self._tasks}
        for partition in closing:
            self.lanes[partition].stop()
        late: set[asyncio.Task[None]] = set()
        if closing:
            _, late = await asyncio.wait(closing.values(), timeout=timeout_s)
            for task in late:
                task.cancel()
        for partition, task in closing.items():
            if self._tasks.get(partition) is not task:  # a drain and a revocation that came together
                continue
            lane = self.lanes.pop(partition)
            del self._tasks[partition]
            if task.done() and not task.cancelled() and task.exception() is None:
                self._keep(partition, lane.engine)
            self._context.telemetry.lane_closed(partition, "abandoned" if task in late else reason)
        return not late

    def _keep(self, partition: int, engine: Engine) -> None:
        """Keep the states of a partition for a while, whether or not it is assigned again."""
        forgetting = asyncio.get_running_loop().call_later(KEPT_S, self._kept.pop, partition)
        self._kept[partition] = engine, forgetting

    def _engine(self, partition: int) -> Engine:
        """The engine kept of a partition, or a new one."""
        kept = self._kept.pop(partition, None)
        if kept is None:
            return self._context.new_engine()
        engine, forgetting = kept
        forgetting.cancel()
        engine.reset_breaker()
        return engine

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if self._failure.done():
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failure.set_exception(error)
        elif not self._draining and task in self._tasks.values():
            partition = next(number for number, lane_task in self._tasks.items() if lane_task is task)
            if not self.lanes[partition].is_stopping:
                self._failure.set_exception(ConfigurationError(f"the lane of partition {partition} ended by itself"))
