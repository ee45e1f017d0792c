"""Logging: one JSON object per line on stderr, or columns on a terminal. Event names are dotted constants.

1. Nothing of a record is ever logged. An exception is told by its type and place, never by its text.
2. Lines of other libraries are let through from WARNING on, cut to one line of bounded length, and only with
   arguments that cannot hold a record (see `_told`).
3. They are limited in number, for aiokafka writes thousands while a broker is down; what was left out is counted.
4. A line that cannot be written, as to a terminal that is gone, is dropped: it never ends what it reports.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import PurePath
from typing import Any, Final, TextIO

import structlog

from consumer.runtime.settings import Settings

LINES_MAX: Final = 2
"""Lines of one foreign logger in `WINDOW_S`."""
WINDOW_S: Final = 60.0
MESSAGE_LENGTH_MAX: Final = 500

_WITHHELD: Final = "(withheld)"
_RECORD_WORDS: Final = ("ConsumerRecord(", "value=", "key=")
_PLAIN: Final = (str, int, float, type(None))
_PARTITION: Final = ("aiokafka.structs", "TopicPartition")
_LISTED_MAX: Final = 10


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process, to `stream` or stderr."""
    stream = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    colours = stream.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
    renderer = structlog.dev.ConsoleRenderer(colors=colours) if console else structlog.processors.JSONRenderer()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_Dropping(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [ForeignHandler()]
    root.setLevel(logging.WARNING)


def mute_libraries() -> None:
    """For commands that end with a message of their own: without a handler Python writes the libraries' to stderr."""
    logging.getLogger().addHandler(logging.NullHandler())


def logger() -> Any:
    """The service's own logger."""
    return structlog.get_logger()


def place_of(error: BaseException) -> str:
    """The type of an exception and where it was raised; never its text, which may hold a value."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return type(error).__name__
    frame, line = frames[-1]
    return f"{type(error).__name__} in {frame.f_code.co_name}, {PurePath(frame.f_code.co_filename).name}:{line}"


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody awaited, by type and place: asyncio's own message would show the arguments of a callback."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        what = context.get("message", "")[:MESSAGE_LENGTH_MAX] if error is None else place_of(error)
        logger().error("loop.exception", error=what)

    loop.set_exception_handler(handle)


class _Dropping:
    """What is written to a stream, or dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class ForeignHandler(logging.Handler):
    """Passes on the lines of other libraries, at most `LINES_MAX` per logger in `WINDOW_S`.

    How many were left out is told with the first foreign line after the window, and at the latest when the process
    ends, by `flush`.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._monotonic_s = monotonic_s
        self._windows: dict[str, tuple[float, int]] = {}
        """By logger: when its window began, and its lines since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, or count it as left out."""
        now_s = self._monotonic_s()
        self._end_windows(before_s=now_s - WINDOW_S)
        began_s, count = self._windows.get(record.name, (now_s, 0))
        self._windows[record.name] = (began_s, count + 1)
        if count >= LINES_MAX:
            return
        error = record.exc_info[1] if record.exc_info else None
        told = {} if error is None else {"error": place_of(error)}
        log = logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library.message", logger=record.name, message=_message(record), **told)

    def flush(self) -> None:
        """Tell of every logger how many lines were left out so far."""
        self._end_windows(before_s=float("inf"))

    def _end_windows(self, before_s: float) -> None:
        for name in [name for name, (began_s, _) in self._windows.items() if began_s <= before_s]:
            _, count = self._windows.pop(name)
            if count > LINES_MAX:
                logger().warning("library.suppressed", logger=name, lines=count - LINES_MAX)


def _message(record: logging.LogRecord) -> str:
    """The first line of a message. The arguments of asyncio are left out: they describe callbacks with their values."""
    template = str(record.msg)
    if record.name == "asyncio" or not record.args:
        message = template
    else:
        args = record.args
        try:
            message = template % (
                {name: _told(arg) for name, arg in args.items()}
                if isinstance(args, dict)
                else tuple(_told(arg) for arg in args)
            )
        except (TypeError, ValueError, KeyError):  # a number was expected where the argument is withheld
            message = template
    first = message.partition("\n")[0]
    return _WITHHELD if any(word in first for word in _RECORD_WORDS) else first[:MESSAGE_LENGTH_MAX]


def _told(arg: object) -> object:
    """An argument of a foreign line as it may be shown: numbers, text, and what is said of brokers and partitions.

    No line of aiokafka from WARNING on has the text of a record among its arguments; bytes and any other object
    could come to hold one, and so could the text of an exception that is neither the system's nor aiokafka's.
    """
    if isinstance(arg, (*_PLAIN, OSError)):
        return arg
    if isinstance(arg, type):
        return arg.__name__
    kind = type(arg)
    if kind.__module__ == "aiokafka.errors" or (kind.__module__, kind.__name__) == _PARTITION:
        return arg
    if isinstance(arg, list | tuple | set | frozenset):
        return [_told(each) for each in islice(arg, _LISTED_MAX)]
    return f"<{kind.__name__}>"
