"""Logging: one JSON object per line on stderr, or columns on a terminal. Event names are dotted constants.

1. No line holds data of a record, nor a character that a terminal would obey. An exception is logged by its type and
   place, never by its text.
2. Lines of other libraries pass from WARNING on, cut to one line of bounded length, and only with arguments that cannot
   hold a record (see `_redact`).
3. Their number is limited, since aiokafka writes thousands while a broker is down. The lines left out are counted.
4. A line that cannot be written, because the terminal is gone for instance, is dropped: logging raises no error.
"""

import asyncio
import contextlib
import json
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

from consumer.settings import Settings
from consumer.terminal_text import escape_json, replace_controls

LINES_MAX: Final = 2
"""Lines of one logger of a library in `WINDOW_S`."""
WINDOW_S: Final = 60.0
MESSAGE_LENGTH_MAX: Final = 500

_WITHHELD: Final = "(withheld)"
_RECORD_WORDS: Final = ("ConsumerRecord(", "value=", "key=")
_PLAIN: Final = (str, int, float, type(None))
_PARTITION: Final = ("aiokafka.structs", "TopicPartition")
_ITEMS_MAX: Final = 10


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging of the whole process, to `stream` or stderr."""
    stream = stream or sys.stderr
    is_terminal = stream.isatty()
    colours = is_terminal and not os.environ.get("NO_COLOR")  # https://no-color.org
    renderers = [_clean, structlog.dev.ConsoleRenderer(colors=colours)] if is_terminal else [_render_json]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_LossyStream(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [ForeignHandler()]
    root.setLevel(logging.WARNING)


def _clean(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event without control characters."""
    return {name: _clean_value(value) for name, value in event.items()}


def _clean_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_clean_value(item) for item in value]
    return replace_controls(value.replace("\n", " ")) if isinstance(value, str) else value


def _render_json(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    """The event as JSON, with control characters escaped."""
    return escape_json(json.dumps(event))


def mute() -> None:
    """Silence libraries and the service's own logger, in commands that print a message or a document themselves."""
    logging.getLogger().addHandler(logging.NullHandler())  # without a handler Python logs to stderr
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def logger() -> Any:
    """The service's own logger."""
    return structlog.get_logger()


def place_of(error: BaseException) -> str:
    """The type of an exception and where it was raised, without its text, which may hold a value."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return type(error).__name__
    frame, line = frames[-1]
    return f"{type(error).__name__} in {frame.f_code.co_name}, {PurePath(frame.f_code.co_filename).name}:{line}"


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log unhandled exceptions by type and place: asyncio's own message has the arguments of the callback."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = context.get("message", "")[:MESSAGE_LENGTH_MAX] if error is None else place_of(error)
        logger().error("loop.exception", error=text)

    loop.set_exception_handler(handle)


class _LossyStream:
    """Writes to a stream, and drops what the stream refuses."""

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

    It logs how many it left out with the first line of any library after the window, and at the end of the process
    by `flush`.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._monotonic_s = monotonic_s
        self._windows: dict[str, tuple[float, int]] = {}
        """By logger: when its window began, and how many lines it has had since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, or count it as left out."""
        now_s = self._monotonic_s()
        self._end_windows(before_s=now_s - WINDOW_S)
        began_s, count = self._windows.get(record.name, (now_s, 0))
        self._windows[record.name] = (began_s, count + 1)
        if count >= LINES_MAX:
            return
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else {"error": place_of(error)}
        log = logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library.message", logger=record.name, message=_format(record), **fields)

    def flush(self) -> None:
        """Log for every logger how many lines were left out so far."""
        self._end_windows(before_s=float("inf"))

    def _end_windows(self, before_s: float) -> None:
        for name in [name for name, (began_s, _) in self._windows.items() if began_s <= before_s]:
            _, count = self._windows.pop(name)
            if count > LINES_MAX:
                logger().warning("library.suppressed", logger=name, lines=count - LINES_MAX)


def _format(record: logging.LogRecord) -> str:
    """The first line of a message. Arguments of asyncio are left out: they describe callbacks with their values."""
    template = str(record.msg)
    if record.name == "asyncio" or not record.args:
        message = template
    else:
        args = record.args
        try:
            message = template % (
                {name: _redact(arg) for name, arg in args.items()}
                if isinstance(args, dict)
                else tuple(_redact(arg) for arg in args)
            )
        except (TypeError, ValueError, KeyError):  # the template expects a number where the argument is withheld
            message = template
    first = message.partition("\n")[0]
    return _WITHHELD if any(word in first for word in _RECORD_WORDS) else first[:MESSAGE_LENGTH_MAX]


def _redact(arg: object) -> object:
    """An argument of a library's line, if it is a number, a text, a partition, or an error of the system or aiokafka.

    Of any other object only its type: bytes, other objects and the text of other exceptions may hold a record. No line
    of aiokafka from WARNING on has the text of a record among its arguments.
    """
    if isinstance(arg, (*_PLAIN, OSError)):
        return arg
    if isinstance(arg, type):
        return arg.__name__
    kind = type(arg)
    if kind.__module__ == "aiokafka.errors" or (kind.__module__, kind.__name__) == _PARTITION:
        return arg
    if isinstance(arg, list | tuple | set | frozenset):
        return [_redact(item) for item in islice(arg, _ITEMS_MAX)]
    return f"<{kind.__name__}>"
