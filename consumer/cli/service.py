"""The composition of the service: which adapters the worker gets, and how it starts and ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from functools import partial

from msgspec import Struct

from consumer.adapters import logs
from consumer.adapters.kafka.group import GroupIntake, Listener
from consumer.adapters.kafka.publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.adapters.kafka.state_log import KafkaStateLog
from consumer.adapters.kafka.state_lookup import KafkaStateLookup
from consumer.adapters.monitoring.metrics import Metrics
from consumer.adapters.monitoring.telemetry import ServiceTelemetry
from consumer.adapters.web.admin import AdminServer
from consumer.adapters.web.answers import LOOK_S, Answers
from consumer.adapters.web.query import QueryServer
from consumer.runtime.board import Board
from consumer.runtime.feed import Feed, ObservedPublisher
from consumer.runtime.lane import World
from consumer.runtime.live_search import LiveSearch
from consumer.runtime.lookup import Lookup
from consumer.runtime.ports import Misfit, Publisher
from consumer.runtime.settings import Settings
from consumer.runtime.worker import Worker
from consumer.version import VERSION

_HEARTBEAT_S = 0.5
_LAG_S = 5.0
_CONNECTION_S = 2.0
_TOLD_S = 30.0


class Service(Struct, frozen=True):
    """A running worker."""

    worker: Worker
    metrics: Metrics
    admin_port: int
    query_port: int


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Service, None]:
    """A worker with its ports, drained and stopped at the end of the context. Raises WorldError."""
    metrics = Metrics()
    telemetry = ServiceTelemetry(metrics)
    intake = GroupIntake(settings)

    feed = Feed()

    def new_publisher(partition: int) -> Publisher:
        if settings.delivery == "exactly_once":
            return ObservedPublisher(TransactionalPublisher(settings, partition), feed.add)
        return ObservedPublisher(AtLeastOncePublisher(settings, partition, intake), feed.add)

    world = World(
        intake, KafkaStateLog(settings), new_publisher, telemetry, time.monotonic, _wall_ms,
        VERSION,
    )  # fmt: skip
    worker = Worker(settings, world)
    try:
        async with _listening(settings, worker, intake, metrics, feed) as (admin_port, query_port):
            logs.logger().info(
                "consumer.starting",
                version=VERSION,
                delivery=settings.delivery,
                admin_port=admin_port,
                query_port=query_port,
            )
            async with _consuming(settings, worker, intake, telemetry, metrics):
                yield Service(worker, metrics, admin_port, query_port)
    finally:
        await intake.stop()  # also where a port could not be had; a second stop does nothing


@contextlib.asynccontextmanager
async def _listening(
    settings: Settings, worker: Worker, intake: GroupIntake, metrics: Metrics, feed: Feed
) -> AsyncGenerator[tuple[int, int], None]:
    """The admin and the query port, while they are served. Raises Misfit if one cannot be had."""
    admin = AdminServer(metrics.registry, worker.stalled, worker.unready, partial(metrics.http_refused, "admin"))
    lookup = Lookup(worker.lanes, KafkaStateLookup(settings, LOOK_S), intake.partition_of)
    search = LiveSearch(worker.lanes, settings.park_cycles_max)
    query = QueryServer(
        Answers(lookup, search, settings.park_cycles_max),
        Board(worker.lanes, feed, metrics.behind),
        token=settings.query_token,
        wall_ms=_wall_ms,
        on_refused=partial(metrics.http_refused, "query"),
    )
    async with contextlib.AsyncExitStack() as started:
        ports = []
        for name, server in (("admin", admin), ("query", query)):
            host, port = getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
            try:
                ports.append(await server.start(host, port))
            except OSError as error:
                raise Misfit(f"CC_{name.upper()}_HOST, CC_{name.upper()}_PORT: {error.strerror}") from error
            started.push_async_callback(server.stop)
        yield ports[0], ports[1]


@contextlib.asynccontextmanager
async def _consuming(
    settings: Settings, worker: Worker, intake: GroupIntake, telemetry: ServiceTelemetry, metrics: Metrics
) -> AsyncGenerator[None, None]:
    """A member of the group, drained at the end."""
    log = logs.logger()
    tasks = [
        asyncio.create_task(_beat(metrics, telemetry)),
        asyncio.create_task(_stay_in_group(worker, intake)),
        asyncio.create_task(_watch_lag(worker, intake, telemetry)),
        asyncio.create_task(_watch_connection(worker, intake)),
    ]
    try:
        try:
            await intake.start(Listener(worker.assigned, worker.revoked))
            yield
        finally:  # also of a start that is given up: lanes may have been assigned by then
            log.info("consumer.draining", seconds_max=settings.drain_s)
            drained = await worker.drain()
            telemetry.progress(now=True)
            log.info("consumer.drained", in_time=drained)
    finally:
        for task in tasks:
            task.cancel()
        await intake.stop()  # before the ports: others wait for the partitions, nobody for an answer


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def _beat(metrics: Metrics, telemetry: ServiceTelemetry) -> None:
    """Measure how late the event loop is, and let the progress line out when nothing is committed."""
    while True:
        due_s = time.monotonic() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        metrics.loop_late(max(0.0, time.monotonic() - due_s))
        telemetry.progress()


async def _stay_in_group(worker: Worker, intake: GroupIntake) -> None:
    """Keep the membership of a worker whose lanes make progress, or that has none."""
    while True:
        await asyncio.sleep(_HEARTBEAT_S)
        if not any(worker.stalled().values()):
            intake.alive()


async def _watch_connection(worker: Worker, intake: GroupIntake) -> None:
    """Tell why the group member is cut off, which idle lanes do not notice, and end what cannot heal."""
    told_s = float("-inf")
    while True:
        await asyncio.sleep(_CONNECTION_S)
        fault = await intake.fault()
        if isinstance(fault, Misfit):
            worker.fail(fault)
        elif fault is None:
            told_s = float("-inf")
        elif time.monotonic() - told_s >= _TOLD_S:
            told_s = time.monotonic()
            logs.logger().warning("group.disconnected", error=str(fault))


async def _watch_lag(worker: Worker, intake: GroupIntake, telemetry: ServiceTelemetry) -> None:
    """Tell how many partitions there are, and the lag of lanes that are held up. All others tell it with each commit.

    Those that have nothing to commit are looked after as well: while a lane opens, the markers of transactions count
    as records, and then it reads past them in silence.
    """
    while True:
        await asyncio.sleep(_LAG_S)
        telemetry.input_partitions(intake.partitions())
        for lane in [lane for lane in worker.lanes.values() if lane.is_idle]:
            caught_up = await intake.lag_records(lane.partition) == 0
            if caught_up and lane.is_idle and worker.lanes.get(lane.partition) is lane:
                telemetry.lagging(lane.partition, 0)
        held_up = [lane for lane in worker.lanes.values() if lane.phase != "running"]
        ends = await intake.ends([lane.partition for lane in held_up]) if held_up else {}
        for lane in held_up:
            end, is_assigned = ends.get(lane.partition), worker.lanes.get(lane.partition) is lane
            if end is not None and lane.committed_offset is not None and is_assigned:
                telemetry.lagging(lane.partition, max(0, end - lane.committed_offset))
