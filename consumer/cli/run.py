"""`run`: the service itself."""

import asyncio
import gc
import os
import resource
import signal
import sys

import click

from consumer.app.service import running
from consumer.cli.exit_codes import OK, SOFTWARE, TERMINATED, exit_code, settings_or_exit
from consumer.cli.options import add_connection, environ
from consumer.cli.signals import on_signals
from consumer.environment import find_secret_files
from consumer.preflight import engine_check, security_checks
from consumer.preflight.check_result import CheckResult, refuse
from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.worker.ports import ExternalError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command()
@add_connection
def run() -> None:
    """Consume conversation updates until SIGTERM, SIGINT or SIGHUP; a second SIGTERM or SIGINT ends at once.

    The topics are verified first, as `check` does. Logs are on stderr.

    \b
    Examples:
      conversation-consumer run

    Exit codes: 0 stopped as asked; 69 Kafka does not answer, or a certificate or token has expired; 70 a bug;
    78 settings, permissions or topics are wrong; 143 ended by a signal during the start, or at once by a second one.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.configure(settings)
    # State is bytes and records make no cycles: the collections that Python does by default cost a quarter more CPU.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    # A lane has sockets to several brokers. The usual soft limit is low for the sake of programs that use select().
    _, descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors_max, descriptors_max))
    sys.exit(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    logs.log_loop_errors(loop)
    stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(_serve(settings, started, stop))

    def ask() -> None:
        stop.set()
        if not started.is_set():  # a broker that does not answer may delay the start for longer than a supervisor waits
            serving.cancel()

    on_signals(_SIGNALS, ask, lambda: os._exit(TERMINATED))
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        logs.logger().info("consumer.stopped")
        return TERMINATED
    except ExternalError as error:
        return _report_failure(str(error), exit_code(error))
    except Exception as error:  # noqa: BLE001 - the last resort: logged by type and place, since its text may hold a value
        return _report_failure(logs.place_of(error), SOFTWARE)
    logs.logger().info("consumer.stopped")
    return OK


async def _serve(settings: Settings, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Start the service and run it until `stop` is set; may be cancelled until it sets `started`."""
    refuse([engine_check.check(settings.engine)])
    async with TopicAdmin(settings) as admin:
        partitions = await admin.verify()
        brokers = await admin.brokers()
        refuse(brokers)
        for result in brokers:
            _warn("consumer.broker_defect", result)
        _warn("consumer.descriptors_low", admin.descriptors(partitions))
    for result in security_checks.all_checks(settings, find_secret_files(environ())):
        _warn("consumer.insecure", result)
    async with running(settings) as service:
        started.set()
        await _until(stop, asyncio.ensure_future(service.worker.failure()))


def _warn(event: str, result: CheckResult) -> None:
    if result.status == "warn":
        logs.logger().warning(event, message=result.message, remedy=result.remedy)


def _report_failure(reason: str, code: int) -> int:
    logs.logger().error("consumer.failed", error=reason, exit_code=code)
    return code


async def _until(stop: asyncio.Event, failure: asyncio.Future[None]) -> None:
    """Wait for the stop; raises the error of the worker if it fails first."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((stopping, failure), return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            failure.result()
    finally:
        stopping.cancel()
        failure.cancel()
