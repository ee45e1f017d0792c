"""The composition of the service: which adapters the worker gets, and how it starts and ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from functools import partial

from msgspec import Struct

from consumer.adapters import logs
from consumer.adapters.kafka.group import GroupIntake, Listener
from consumer.adapters.kafka.log_ends import KafkaLogEnds
from consumer.adapters.kafka.publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.adapters.kafka.state_log import KafkaStateLog
from consumer.adapters.kafka.state_lookup import KafkaStateLookup
from consumer.adapters.monitoring.metrics import Metrics
from consumer.adapters.monitoring.telemetry import ServiceTelemetry
from consumer.adapters.web.admin import AdminServer
from consumer.adapters.web.answers import LOOK_S, Answers
from consumer.adapters.web.query import QueryServer
from consumer.cli import watch
from consumer.runtime.board import Board
from consumer.runtime.feed import Feed
from consumer.runtime.lag_watch import LagWatch
from consumer.runtime.live_search import LiveSearch
from consumer.runtime.lookup import Lookup
from consumer.runtime.ports import Misfit, Publisher, World
from consumer.runtime.settings import Settings
from consumer.runtime.worker import Worker
from consumer.version import VERSION


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
            return TransactionalPublisher(settings, partition)
        return AtLeastOncePublisher(settings, partition, intake)

    state_log = KafkaStateLog(settings)
    world = World(intake, state_log, new_publisher, telemetry, feed.add, time.monotonic, _wall_ms, VERSION)
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
        Board(worker.lanes, feed, lambda: worker.outage),
        token=settings.query_token,
        wall_ms=_wall_ms,
        on_refused=partial(metrics.http_refused, "query"),
    )
    async with contextlib.AsyncExitStack() as started:
        ports = []
        for server, host, port, named in (
            (admin, settings.admin_host, settings.admin_port, "CC_ADMIN_HOST, CC_ADMIN_PORT"),
            (query, settings.query_host, settings.query_port, "CC_QUERY_HOST, CC_QUERY_PORT"),
        ):
            try:
                ports.append(await server.start(host, port))
            except OSError as error:
                raise Misfit(f"{named}: {error.strerror}") from error
            started.push_async_callback(server.stop)
        yield ports[0], ports[1]


@contextlib.asynccontextmanager
async def _consuming(
    settings: Settings, worker: Worker, intake: GroupIntake, telemetry: ServiceTelemetry, metrics: Metrics
) -> AsyncGenerator[None, None]:
    """A member of the group, drained at the end."""
    log = logs.logger()
    log_ends = KafkaLogEnds(settings)
    lag_watch = LagWatch(worker.lanes, intake, log_ends, telemetry, settings, time.monotonic, _wall_ms)
    tasks = [
        asyncio.create_task(watch.beat(metrics, telemetry)),
        asyncio.create_task(watch.stay_in_group(worker, intake)),
        asyncio.create_task(watch.lag(lag_watch, intake, telemetry)),
        asyncio.create_task(watch.connection(worker, intake, metrics)),
        asyncio.create_task(watch.leaders(settings, intake, metrics)),
    ]
    for task in tasks:
        task.add_done_callback(partial(_end_with, worker))
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
        await log_ends.stop()
        await intake.stop()  # before the ports: others wait for the partitions, nobody for an answer


def _end_with(worker: Worker, watching: "asyncio.Task[None]") -> None:
    """End the worker with the error of a watch: what is not watched any more would always look healthy."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        worker.fail(error if isinstance(error, Exception) else RuntimeError(error))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
