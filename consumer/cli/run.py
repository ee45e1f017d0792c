"""`run`: the service itself."""

import asyncio
import os
import signal
import sys

import click
import structlog

from consumer.adapters import logs
from consumer.adapters.kafka_topics import TopicAdmin
from consumer.cli.exits import CONFIG, OK, SOFTWARE, exit_code, settings_or_exit
from consumer.cli.service import running
from consumer.runtime.ports import WorldError
from consumer.runtime.settings import Settings

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
def run() -> None:
    """Consume conversation updates until SIGTERM or SIGINT; a second signal ends at once."""
    settings = settings_or_exit()
    logs.configure(settings)
    sys.exit(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    log = structlog.get_logger()
    loop = asyncio.get_running_loop()
    logs.log_loop_errors(loop)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        async with TopicAdmin(settings) as admin:
            await admin.verify()
        async with running(settings) as service:
            await _until(stop, asyncio.ensure_future(service.worker.failure()))
    except WorldError as error:
        log.error("consumer.failed", error=str(error), exit_code=exit_code(error))
        return exit_code(error)
    except OSError as error:
        log.error("consumer.failed", error=f"CC_ADMIN_HOST, CC_ADMIN_PORT: {error.strerror}", exit_code=CONFIG)
        return CONFIG
    except Exception as error:  # noqa: BLE001 - the last resort: told by type and place, since its text may hold a value
        log.error("consumer.failed", error=logs.place_of(error), exit_code=SOFTWARE)
        return SOFTWARE
    log.info("consumer.stopped")
    return OK


async def _until(stop: asyncio.Event, failure: asyncio.Future[None]) -> None:
    """Wait for the stop; raises what ended the worker before."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((stopping, failure), return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            failure.result()
    finally:
        stopping.cancel()
        failure.cancel()
