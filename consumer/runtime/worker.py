"""The worker: the lanes of one process, as the consumer group assigns them.

1. There is at most one lane per partition; its task is in `_tasks` for as long as it runs.
2. The callbacks of the group record and bound: they never wait for a fetch, and give a lane a limited time to commit.
   A lane that needs longer is cancelled; its producer's fence keeps whatever it still tries from being seen.
3. State of a lane that ended in order is kept for a while: if the partition comes back, only what was written since
   is read.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from consumer.runtime.commit_policy import CommitPolicy
from consumer.runtime.lane import Lane
from consumer.runtime.ports import Misfit, World, WorldError
from consumer.runtime.settings import Settings
from consumer.runtime.state_store import StateStore

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

    def __init__(self, settings: Settings, world: World) -> None:
        self.lanes: dict[int, Lane] = {}
        self.outage: Outage | None = None
        """Since when and why Kafka does not have this worker in the group, None while it does."""
        self._settings = settings
        self._rules = settings.rules()
        self._world = world
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._kept: dict[int, tuple[StateStore, asyncio.TimerHandle]] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined = False
        self._draining = False

    def assigned(self, partitions: Sequence[int]) -> None:
        """Partitions are this worker's: a lane is started for each."""
        self._joined = True
        self._world.telemetry.rebalanced("assigned", partitions)
        if self._draining:
            return
        for partition in partitions:
            if partition in self._tasks:
                continue
            lane = Lane(
                partition, self._store(partition), self._settings, self._policy, self._world, self._has_moving_lane
            )
            self.lanes[partition] = lane
            self._tasks[partition] = asyncio.create_task(lane.run(), name=f"lane-{partition}")
            self._tasks[partition].add_done_callback(self._note_end)

    async def revoked(self, partitions: Sequence[int]) -> None:
        """Partitions are taken away: their lanes commit what is staged, within half the rebalance timeout."""
        self._world.telemetry.rebalanced("revoked", partitions)
        await self._close(partitions, self._settings.rebalance_timeout_ms / 2_000, "revoked")

    async def failure(self) -> None:
        """Wait until something goes wrong that ends the process; raises it."""
        await asyncio.shield(self._failure)

    def note_connection(self, fault: WorldError | None) -> None:
        """What keeps the group member from Kafka just now, None if nothing does."""
        if fault is None:
            self.outage = None
        else:
            since_ms = self._world.wall_ms() if self.outage is None else self.outage.since_ms
            self.outage = Outage(str(fault), since_ms)

    def fail(self, error: Exception) -> None:
        """End the process with an error that no lane would notice."""
        if not self._failure.done():
            self._failure.set_exception(error)

    async def drain(self) -> bool:
        """Commit what is staged and end all lanes within `drain_s`; returns whether all ended in time."""
        self._draining = True
        return await self._close(list(self.lanes), self._settings.drain_s, "drained")

    def unready(self) -> dict[str, str | None]:
        """What keeps the worker from serving, by check; None where nothing does."""
        opening = [lane.partition for lane in self.lanes.values() if not lane.is_open]
        blocked = {lane.partition: lane.breaker.open_because for lane in self.lanes.values() if lane.phase == "blocked"}
        still = [
            f"partition {lane.partition}: {lane.standstill.found}" for lane in self.lanes.values() if lane.standstill
        ]
        if len(still) > _SHOWN_MAX:
            still[_SHOWN_MAX:] = [f"and {len(still) - _SHOWN_MAX} more"]
        return {
            "group": None if self._joined else "has not joined the consumer group yet",
            "connection": None if self.outage is None else self.outage.reason,
            "standstill": "; ".join(still) or None,
            "lanes": f"partitions {opening} are not open" if opening else None,
            "breaker": f"too many dead letters: {blocked}" if blocked else None,
            "draining": "shutting down" if self._draining else None,
        }

    def stalled(self) -> dict[str, str | None]:
        """What has stopped making progress, by check. Waiting for a broker that does not answer is progress."""
        now_s = self._world.monotonic_s()
        limit_s = 2 * self._settings.commit_timeout_s + self._settings.request_timeout_ms / 1_000
        stuck = [lane.partition for lane in self.lanes.values() if now_s - lane.last_progress_s > limit_s]
        return {"lanes": f"partitions {stuck} made no progress for {limit_s:g} s" if stuck else None}

    def _has_moving_lane(self) -> bool:
        return any(lane.is_reading and lane.standstill is None for lane in self.lanes.values())

    def _policy(self) -> CommitPolicy:
        return CommitPolicy.of(self._settings, len(self.lanes))

    async def _close(self, partitions: Sequence[int], patience_s: float, reason: str) -> bool:
        closing = {partition: self._tasks[partition] for partition in partitions if partition in self._tasks}
        for partition in closing:
            self.lanes[partition].stop()
        late: set[asyncio.Task[None]] = set()
        if closing:
            _, late = await asyncio.wait(closing.values(), timeout=patience_s)
            for task in late:
                task.cancel()
        for partition, task in closing.items():
            if self._tasks.get(partition) is not task:  # a drain and a revocation that came together
                continue
            lane = self.lanes.pop(partition)
            del self._tasks[partition]
            if task.done() and not task.cancelled() and task.exception() is None:
                self._keep(partition, lane.store)
            self._world.telemetry.lane_closed(partition, "abandoned" if task in late else reason)
        return not late

    def _keep(self, partition: int, store: StateStore) -> None:
        """Keep a state for a while, whether or not there is another assignment."""
        forgetting = asyncio.get_running_loop().call_later(KEPT_S, self._kept.pop, partition)
        self._kept[partition] = store, forgetting

    def _store(self, partition: int) -> StateStore:
        """The state kept of a partition, or a new one."""
        kept = self._kept.pop(partition, None)
        if kept is None:
            return StateStore(self._rules)
        store, forgetting = kept
        forgetting.cancel()
        return store

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if self._failure.done():
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failure.set_exception(error)
        elif not self._draining and task in self._tasks.values():
            partition = next(partition for partition, each in self._tasks.items() if each is task)
            if not self.lanes[partition].is_stopping:
                self._failure.set_exception(Misfit(f"the lane of partition {partition} ended by itself"))
