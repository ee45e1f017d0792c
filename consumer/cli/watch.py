"""What is watched while a service runs, each for ever: the loop, the membership, the connection, lag and leaders."""

import asyncio
import time

from consumer.adapters import logs
from consumer.adapters.kafka.group import GroupIntake
from consumer.adapters.monitoring.labels import TOPICS
from consumer.adapters.monitoring.metrics import Metrics
from consumer.adapters.monitoring.telemetry import ServiceTelemetry
from consumer.runtime.lag_watch import LagWatch
from consumer.runtime.ports import Misfit
from consumer.runtime.settings import Settings
from consumer.runtime.worker import Worker

_HEARTBEAT_S = 0.5
_LAG_S = 4.0
_CONNECTION_S = 2.0
_LEADERS_S = 10.0
_TOLD_S = 30.0


async def beat(metrics: Metrics, telemetry: ServiceTelemetry) -> None:
    """Measure how late the event loop is, and let the progress line out when nothing is committed."""
    while True:
        due_s = time.monotonic() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        metrics.loop_late(max(0.0, time.monotonic() - due_s))
        telemetry.progress()


async def stay_in_group(worker: Worker, intake: GroupIntake) -> None:
    """Keep the membership of a worker whose lanes make progress, or that has none."""
    while True:
        await asyncio.sleep(_HEARTBEAT_S)
        if not any(worker.stalled().values()):
            intake.alive()


async def connection(worker: Worker, intake: GroupIntake, metrics: Metrics) -> None:
    """Tell whether and why the group member is cut off, which idle lanes do not notice, and end what cannot heal."""
    told_s = float("-inf")
    while True:
        await asyncio.sleep(_CONNECTION_S)
        fault = await intake.fault()
        metrics.connected(is_connected=fault is None)
        worker.note_connection(fault)
        if isinstance(fault, Misfit):
            worker.fail(fault)
        elif fault is None:
            told_s = float("-inf")
        elif time.monotonic() - told_s >= _TOLD_S:
            told_s = time.monotonic()
            logs.logger().warning("group.disconnected", error=str(fault))


async def lag(watch: LagWatch, intake: GroupIntake, telemetry: ServiceTelemetry) -> None:
    """Tell how many partitions there are, how far the lanes are from their ends, and which of them stand still."""
    while True:
        await asyncio.sleep(_LAG_S)
        telemetry.input_partitions(intake.partitions())
        await watch.look()


async def leaders(settings: Settings, intake: GroupIntake, metrics: Metrics) -> None:
    """Count the partitions without a leader, by topic. Where that is not known, the last count stays."""
    names = dict(zip(TOPICS, settings.topics, strict=True))
    while True:
        offline = await intake.offline_partitions(settings.topics)
        for topic, name in names.items():
            if name in offline:
                metrics.offline_partitions(topic, offline[name])
        await asyncio.sleep(_LEADERS_S)
