"""Logging: one JSON object per line on stderr, or colours on a terminal. Event names are dotted constants.

Nothing of a record is ever logged. Lines of other libraries are cut to their message, told without their
tracebacks' values, and limited in number: aiokafka writes thousands while a broker is down.
"""

import asyncio
import logging
import sys
import time
import traceback
from typing import Any, TextIO

import structlog

from consumer.runtime.settings import Settings

_FOREIGN_LINES_MAX = 20
_FOREIGN_WINDOW_S = 10.0
_FOREIGN_MESSAGE_MAX = 300
_RECORD_WORDS = ("ConsumerRecord", "value=", "key=")


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process, to `stream` or stderr."""
    stream = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(sort_keys=False)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [ForeignHandler()]
    root.setLevel(logging.WARNING)


def place_of(error: BaseException) -> str:
    """The type of an exception and where it was raised; never its text, which may hold a value."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody awaited."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        what = context.get("message", "") if error is None else place_of(error)
        structlog.get_logger().error("loop.exception", error=what)

    loop.set_exception_handler(handle)


class ForeignHandler(logging.Handler):
    """Passes on the lines of other libraries, at most `_FOREIGN_LINES_MAX` per logger in `_FOREIGN_WINDOW_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, or count it as left out."""
        started_s, count = self._windows.get(record.name, (0.0, 0))
        now_s = time.monotonic()
        log = structlog.get_logger().bind(logger=record.name)
        if now_s - started_s >= _FOREIGN_WINDOW_S:
            if count > _FOREIGN_LINES_MAX:
                log.warning("library.suppressed", lines=count - _FOREIGN_LINES_MAX)
            started_s, count = now_s, 0
        self._windows[record.name] = (started_s, count + 1)
        if count >= _FOREIGN_LINES_MAX:
            return
        message = record.getMessage()
        if any(word in message for word in _RECORD_WORDS):
            message = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        told = {} if error is None else {"error": place_of(error)}
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(log, level)("library.message", message=message[:_FOREIGN_MESSAGE_MAX], **told)
