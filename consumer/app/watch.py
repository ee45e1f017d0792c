"""The watches of a running service, which never end: loop, membership, connection, lag, leaders, memory, trends."""

import asyncio
import time

from consumer.kafka.group_consumer import GroupConsumer
from consumer.query.trends import Trends
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.telemetry.labels import TOPICS
from consumer.telemetry.log_events import ServiceTelemetry
from consumer.telemetry.metrics import Metrics
from consumer.worker.lag_watch import LagWatch
from consumer.worker.ports import ConfigurationError
from consumer.worker.worker import Worker

_HEARTBEAT_S = 0.5
_LAG_S = 4.0
_CONNECTION_S = 2.0
_LEADERS_S = 10.0
_REPEAT_S = 30.0
_MEMORY_S = 2.0
_MEMORY_REPEAT_S = 600.0


async def beat(metrics: Metrics, telemetry: ServiceTelemetry) -> None:
    """Measure how late the event loop is, and log the progress line also while no lane commits."""
    while True:
        due_s = time.monotonic() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        metrics.loop_late(max(0.0, time.monotonic() - due_s))
        telemetry.progress()


async def stay_in_group(worker: Worker, input_consumer: GroupConsumer) -> None:
    """Keep the worker in its group while its lanes make progress, or while it has none."""
    while True:
        await asyncio.sleep(_HEARTBEAT_S)
        if not any(worker.liveness_problems().values()):
            input_consumer.alive()


async def connection(worker: Worker, input_consumer: GroupConsumer, metrics: Metrics) -> None:
    """Report a lost connection to Kafka, which idle lanes do not notice, and end the worker if a retry cannot help."""
    logged_s = float("-inf")
    while True:
        await asyncio.sleep(_CONNECTION_S)
        fault = await input_consumer.fault()
        metrics.connected(is_connected=fault is None)
        worker.note_connection(fault)
        if isinstance(fault, ConfigurationError):
            worker.fail(fault)
        elif fault is None:
            logged_s = float("-inf")
        elif time.monotonic() - logged_s >= _REPEAT_S:
            logged_s = time.monotonic()
            logs.logger().warning("group.disconnected", error=str(fault))


async def lag(watch: LagWatch, input_consumer: GroupConsumer, telemetry: ServiceTelemetry) -> None:
    """Report how many partitions there are, how far the lanes are behind, and which of them stand still."""
    while True:
        await asyncio.sleep(_LAG_S)
        telemetry.input_partitions(input_consumer.partitions())
        await watch.look()


async def leaders(settings: Settings, input_consumer: GroupConsumer, metrics: Metrics) -> None:
    """Count the partitions without a leader per topic. While the count is unknown, the last one stays."""
    names = dict(zip(TOPICS, settings.topics, strict=True))
    while True:
        offline = await input_consumer.offline_partitions(settings.topics)
        for topic, name in names.items():
            if name in offline:
                metrics.offline_partitions(topic, offline[name])
        await asyncio.sleep(_LEADERS_S)


async def memory(worker: Worker) -> None:
    """Warn when the states take nearly all the memory that they may."""
    logged_s = float("-inf")
    while True:
        await asyncio.sleep(_MEMORY_S)
        found = worker.state_memory()
        if found.is_near and time.monotonic() - logged_s >= _MEMORY_REPEAT_S:
            logged_s = time.monotonic()
            logs.logger().warning(
                "consumer.memory_low",
                state_bytes=found.bytes,
                state_bytes_max=found.bytes_max,
                remedy="give the container more memory, or start more workers; full, the lanes stop (see the runbook)",
            )


async def sample(trends: Trends) -> None:
    """Take the samples of the live page's trends."""
    while True:
        await asyncio.sleep(trends.seconds_to_next())
        trends.sample()
