"""Composes the service: which adapters the worker gets, and in which order all of it starts and ends."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator
from functools import partial

from msgspec import Struct

from consumer import container_memory
from consumer.app import watch
from consumer.engine.choice import EngineName, choose_engine, choose_records, name_engine
from consumer.kafka.group_consumer import GroupConsumer, Listener
from consumer.kafka.group_view import KafkaGroupView
from consumer.kafka.log_ends import KafkaLogEnds
from consumer.kafka.publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.kafka.state_log import KafkaStateLog
from consumer.kafka.state_lookup import KafkaStateLookup
from consumer.query.fleet import Fleet
from consumer.query.live_search import LiveSearch
from consumer.query.lookup import Lookup
from consumer.query.overview import OverviewReader
from consumer.query.recent_activity import RecentActivity
from consumer.settings import Settings, is_loopback, is_unspecified, join_address, parse_address
from consumer.telemetry import logs
from consumer.telemetry.log_events import ServiceTelemetry
from consumer.telemetry.metrics import Metrics
from consumer.version import VERSION
from consumer.web.access_log import AuditLog
from consumer.web.admin_port import AdminServer
from consumer.web.answers import LOOK_S, Answers
from consumer.web.query_port import QueryServer
from consumer.web.worker_client import WorkerClient
from consumer.web.worker_signature import WorkerSignature
from consumer.worker.lag_watch import LagWatch
from consumer.worker.ports import ConfigurationError, LaneContext, Publisher
from consumer.worker.worker import Worker


class Service(Struct, frozen=True):
    """A running worker."""

    worker: Worker
    metrics: Metrics
    admin_port: int
    query_port: int | None
    """None if it is switched off."""


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Service, None]:
    """Start a worker with its ports; drain and stop it at the end of the context. Raises ExternalError."""
    engine = name_engine(settings.engine)
    metrics = Metrics(engine=engine)
    telemetry = ServiceTelemetry(metrics)
    input_consumer = GroupConsumer(settings, choose_records(engine))
    recent_activity = RecentActivity(_wall_ms)

    def new_publisher(partition: int) -> Publisher:
        if settings.delivery == "exactly_once":
            return TransactionalPublisher(settings, partition)
        return AtLeastOncePublisher(settings, partition, input_consumer)

    context = LaneContext(
        input_consumer=input_consumer,
        state_log=KafkaStateLog(settings),
        new_publisher=new_publisher,
        telemetry=telemetry,
        on_commit=recent_activity.add,
        monotonic_s=time.monotonic,
        wall_ms=_wall_ms,
        new_engine=choose_engine(settings, VERSION),
    )
    worker = Worker(settings, context, _find_state_bytes_max(settings))
    metrics.watch(worker.states, worker.state_memory, lambda: input_consumer.identity()[1])
    try:
        async with _serve_ports(settings, worker, input_consumer, metrics, recent_activity, engine) as ports:
            admin_port, query_port = ports
            logs.logger().info(
                "consumer.starting",
                version=VERSION,
                engine=engine,
                delivery=settings.delivery,
                admin_port=admin_port,
                query_port=query_port,
            )
            async with _consume(settings, worker, input_consumer, telemetry, metrics):
                yield Service(worker, metrics, admin_port, query_port)
    finally:
        await input_consumer.stop()  # also if a port was not free; a second stop does nothing


@contextlib.asynccontextmanager
async def _serve_ports(
    settings: Settings,
    worker: Worker,
    input_consumer: GroupConsumer,
    metrics: Metrics,
    recent_activity: RecentActivity,
    engine: EngineName,
) -> AsyncGenerator[tuple[int, int | None], None]:
    """Serve the admin port and, unless it is off, the query port; yields their numbers.

    Raises ConfigurationError if one cannot be bound.
    """
    admin = AdminServer(
        metrics.registry, worker.liveness_problems, worker.readiness_problems, partial(metrics.http_refused, "admin")
    )
    async with contextlib.AsyncExitStack() as started:

        async def start(server: AdminServer | QueryServer, host: str, port: int, names: str) -> int:
            try:
                number = await server.start(host, port)
            except OSError as error:
                raise ConfigurationError(f"{names}: {error.strerror}") from error
            started.push_async_callback(server.stop)
            return number

        admin_port = await start(admin, settings.admin_host, settings.admin_port, "CC_ADMIN_HOST, CC_ADMIN_PORT")
        if settings.query_port == "off":
            yield admin_port, None
            return
        rules = settings.rules()
        lookup = Lookup(worker.lanes, KafkaStateLookup(settings, LOOK_S), input_consumer.find_candidates)
        overviews = OverviewReader(
            worker.lanes, recent_activity, lambda: worker.outage, worker.awaited, lambda: input_consumer.address
        )
        sampling = asyncio.create_task(watch.sample(overviews.trends))
        sampling.add_done_callback(partial(_fail_with, worker))
        started.callback(sampling.cancel)
        group = KafkaGroupView(settings, input_consumer.identity, input_consumer.partitions)
        started.push_async_callback(group.stop)
        signature = WorkerSignature(settings.query_token, _wall_ms)
        workers = WorkerClient(signature)
        started.push_async_callback(workers.stop)
        search = LiveSearch(worker.lanes, rules.park_cycles_max)
        answers = Answers(lookup, search, overviews, rules.park_cycles_max, group.generation)
        query = QueryServer(
            answers,
            Fleet(group, workers, answers, answers.budget.run),
            overviews,
            token=settings.query_token,
            signature=signature,
            address=lambda: input_consumer.address,
            engine=engine,
            wall_ms=_wall_ms,
            on_refused=partial(metrics.http_refused, "query"),
            audit=AuditLog(rules.digest_key) if settings.query_audit == "on" else None,
        )
        query_port = await start(query, settings.query_host, settings.query_port, "CC_QUERY_HOST, CC_QUERY_PORT")
        input_consumer.address = _advertised_address(settings, query_port)
        yield admin_port, query_port


def _advertised_address(settings: Settings, port: int) -> str:
    """Where other workers reach the query port, empty if they do not."""
    host, named_port = parse_address(settings.query_advertised or settings.query_host) or ("", None)
    if not settings.query_advertised:
        if not host or is_loopback(host):
            return ""
        if is_unspecified(host):
            host = socket.gethostname()
    return join_address(host, named_port or port)


@contextlib.asynccontextmanager
async def _consume(
    settings: Settings, worker: Worker, input_consumer: GroupConsumer, telemetry: ServiceTelemetry, metrics: Metrics
) -> AsyncGenerator[None, None]:
    """Join the group and watch the worker; drain it at the end."""
    log = logs.logger()
    log_ends = KafkaLogEnds(settings)
    lag_watch = LagWatch(
        worker.lanes, worker.awaited, input_consumer, log_ends, telemetry, settings, time.monotonic, _wall_ms
    )
    tasks = [
        asyncio.create_task(watch.beat(metrics, telemetry)),
        asyncio.create_task(watch.stay_in_group(worker, input_consumer)),
        asyncio.create_task(watch.lag(lag_watch, input_consumer, telemetry)),
        asyncio.create_task(watch.connection(worker, input_consumer, metrics)),
        asyncio.create_task(watch.leaders(settings, input_consumer, metrics)),
        asyncio.create_task(watch.memory(worker)),
    ]
    for task in tasks:
        task.add_done_callback(partial(_fail_with, worker))
    try:
        try:
            await input_consumer.start(Listener(worker.assigned, worker.revoked))
            yield
        finally:  # also if the start fails: lanes may have been assigned by then
            log.info("consumer.draining", seconds_max=settings.drain_s)
            drained = await worker.drain()
            telemetry.progress(now=True)
            log.info("consumer.drained", in_time=drained)
    finally:
        for task in tasks:
            task.cancel()
        await log_ends.stop()
        await input_consumer.stop()  # before the ports: other workers wait for the partitions


def _find_state_bytes_max(settings: Settings) -> int:
    """What the states may take, 0 for no limit: as set, or a share of what the container has."""
    limit = None if settings.state_total_bytes_max else container_memory.find_limit()
    return settings.state_total_bytes_max if limit is None else container_memory.share_of_states(limit)


def _fail_with(worker: Worker, watching: "asyncio.Task[None]") -> None:
    """End the worker with the error of a watch: without it the worker would always look healthy."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        worker.fail(error if isinstance(error, Exception) else RuntimeError(error))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
