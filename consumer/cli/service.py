"""The composition of the service: which adapters the worker gets, and how it starts and ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from msgspec import Struct

from consumer.adapters import logs
from consumer.adapters.admin import AdminServer
from consumer.adapters.kafka_group import GroupIntake, Listener
from consumer.adapters.kafka_publisher import AtLeastOncePublisher, TransactionalPublisher
from consumer.adapters.kafka_state_log import KafkaStateLog
from consumer.adapters.metrics import Metrics
from consumer.adapters.telemetry import ServiceTelemetry
from consumer.runtime.lane import World
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


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Service, None]:
    """A worker with its admin port, drained and stopped at the end of the context. Raises WorldError, OSError."""
    metrics = Metrics()
    telemetry = ServiceTelemetry(metrics)
    intake = GroupIntake(settings)

    def new_publisher(partition: int) -> Publisher:
        if settings.delivery == "exactly_once":
            return TransactionalPublisher(settings, partition)
        return AtLeastOncePublisher(settings, partition, intake)

    world = World(
        intake, KafkaStateLog(settings), new_publisher, telemetry, time.monotonic, lambda: time.time_ns() // 1_000_000,
        VERSION,
    )  # fmt: skip
    worker = Worker(settings, world)
    admin = AdminServer(metrics.registry, worker.stalled, worker.unready)
    port = await admin.start(settings.admin_host, settings.admin_port)
    log = logs.logger()
    log.info("consumer.starting", version=VERSION, delivery=settings.delivery, admin_port=port)
    tasks = [
        asyncio.create_task(_beat(metrics, telemetry)),
        asyncio.create_task(_watch_lag(worker, intake, telemetry)),
        asyncio.create_task(_watch_connection(worker, intake)),
    ]
    try:
        await intake.start(Listener(worker.assigned, worker.revoked))
        try:
            yield Service(worker, metrics, port)
        finally:
            log.info("consumer.draining", seconds_max=settings.drain_s)
            drained = await worker.drain()
            telemetry.progress(now=True)
            log.info("consumer.drained", in_time=drained)
    finally:
        for task in tasks:
            task.cancel()
        await intake.stop()
        await admin.stop()


async def _beat(metrics: Metrics, telemetry: ServiceTelemetry) -> None:
    """Measure how late the event loop is, and let the progress line out when nothing is committed."""
    while True:
        due_s = time.monotonic() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        metrics.loop_late(max(0.0, time.monotonic() - due_s))
        telemetry.progress()


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
    """Measure the lag of lanes that are held up. All others tell it with each commit."""
    while True:
        await asyncio.sleep(_LAG_S)
        held_up = [lane for lane in worker.lanes.values() if lane.phase != "running"]
        ends = await intake.ends([lane.partition for lane in held_up]) if held_up else {}
        for lane in held_up:
            end, is_assigned = ends.get(lane.partition), worker.lanes.get(lane.partition) is lane
            if end is not None and lane.committed_offset is not None and is_assigned:
                telemetry.lagging(lane.partition, max(0, end - lane.committed_offset))
