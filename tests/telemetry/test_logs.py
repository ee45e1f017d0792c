"""Log lines, parsed as they are written."""

import asyncio
import contextlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import NodeNotReadyError

from consumer.settings import Settings
from consumer.telemetry import logs

MARK = "mark-of-a-record"


class Stream(io.StringIO):
    """Standard error, as far as logging uses it."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> Stream:
    written = Stream()
    logs.configure(Settings(bootstrap_servers="b:1"), written)
    return written


def handler_of(clock: list[float]) -> logs.ForeignHandler:
    """The root's only handler, on a clock that the test moves."""
    handler = logs.ForeignHandler(lambda: clock[0])
    logging.getLogger().handlers[:] = [handler]
    return handler


def test_a_line_is_a_json_object_with_event_level_and_time(stream: Stream) -> None:
    structlog.get_logger().info("lane.opened", partition=3)
    (line,) = stream.lines()
    written = datetime.fromisoformat(line.pop("timestamp"))
    assert line == {"event": "lane.opened", "level": "info", "partition": 3}
    assert written.utcoffset() == UTC.utcoffset(None)


OBEYED = "\x1b]0;mine\x07\x9b2J\u202e\x7f"
"""As a broker or a peer may send it."""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_has_nothing_that_a_terminal_obeys(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a table
    monkeypatch.setenv("NO_COLOR", "1")
    written = Stream(terminal=terminal)
    logs.configure(Settings(bootstrap_servers="b:1"), written)
    structlog.get_logger().warning("lane.failed", error=OBEYED, hanging=[OBEYED, "b\nc"], partition=3)
    logging.getLogger("aiokafka").error("Unable connect to %s", OBEYED)
    lines = written.getvalue().removesuffix("\n").split("\n")
    assert len(lines) == 2
    assert all(map(str.isprintable, lines))
    if not terminal:
        assert written.lines()[0]["error"] == OBEYED


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_is_json_but_on_a_terminal(terminal: bool) -> None:  # noqa: FBT001 - a table
    stream = Stream(terminal=terminal)
    logs.configure(Settings(bootstrap_servers="b:1"), stream)
    structlog.get_logger().info("lane.opened")
    assert stream.getvalue().startswith("{") != terminal
    assert "lane.opened" in stream.getvalue()


@pytest.mark.parametrize(
    ("terminal", "no_color", "is_coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_terminals_without_no_color(
    terminal: bool,  # noqa: FBT001 - a column of the table
    no_color: str,
    is_coloured: bool,  # noqa: FBT001 - as above
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Stream(terminal=terminal)
    logs.configure(Settings(bootstrap_servers="b:1"), stream)
    structlog.get_logger().info("lane.opened")
    assert ("\x1b[" in stream.getvalue()) is is_coloured


def test_a_line_that_cannot_be_written_is_dropped() -> None:
    """A terminal that is gone, a full disk: the program that logs continues."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        with pytest.raises(OSError, match="No space left"):
            print("it is full", file=full, flush=True)
        logs.configure(Settings(bootstrap_servers="b:1"), full)
        for _ in range(10_000):
            structlog.get_logger().info("lane.opened")
        with contextlib.suppress(OSError):
            full.close()


def test_lines_below_the_level_are_dropped() -> None:
    stream = Stream()
    logs.configure(Settings(bootstrap_servers="b:1", log_level="warning"), stream)
    structlog.get_logger().info("lane.opened")
    structlog.get_logger().warning("lane.failed")
    assert [line["event"] for line in stream.lines()] == ["lane.failed"]


def test_lines_of_libraries_pass_from_warning_on(stream: Stream) -> None:
    log = logging.getLogger("aiokafka.client")
    log.info("not of interest")
    log.warning("Unable to request metadata from node with id %s: %r", 2, NodeNotReadyError("node 2"))
    log.error('Unable connect to "%s:%s": %s', "broker", 9092, ConnectionRefusedError(111, "refused"))
    assert [(line["event"], line["level"], line["logger"], line["message"]) for line in stream.lines()] == [
        (
            "library.message", "warning", "aiokafka.client",
            "Unable to request metadata from node with id 2: NodeNotReadyError('node 2')",
        ),
        ("library.message", "error", "aiokafka.client", 'Unable connect to "broker:9092": [Errno 111] refused'),
    ]  # fmt: skip


def test_partitions_and_error_types_are_logged(stream: Stream) -> None:
    partition = TopicPartition("updates", 3)
    logging.getLogger("aiokafka").error("Failed for %s of %s: %s", partition, [partition], NodeNotReadyError)
    (line,) = stream.lines()
    text = "TopicPartition(topic='updates', partition=3)"
    assert line["message"] == f"Failed for {text} of [{text}]: NodeNotReadyError"


def fail(text: str) -> None:
    raise ValueError(text)


def test_no_line_holds_data_of_a_record(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LINES_MAX", 20)
    record: ConsumerRecord[bytes, bytes] = ConsumerRecord("t", 0, 0, 0, 0, MARK.encode(), MARK.encode(), None, 1, 1, ())
    log = logging.getLogger("aiokafka.consumer.fetcher")
    log.error("Failed: %s", record)
    log.error("Failed: %r", [record, (record,)])
    log.error("Failed: %r", {"key": record})
    log.error("Failed: %s", MARK.encode())
    log.error("Failed: %s", ValueError(MARK))
    log.error("Failed: %(record)s", {"record": record})
    logs.ForeignHandler().emit(logging.LogRecord(log.name, logging.ERROR, "", 0, "Failed: %d", (record,), None))
    log.error(f"Failed: {record}")  # noqa: G004 - as a library might
    log.error("Failed: first\n%s", MARK)
    logging.getLogger("asyncio").warning("Executing %s took %.3f seconds", f"<Handle call({MARK!r})>", 0.2)
    try:
        fail(MARK)
    except ValueError:
        log.exception("Unexpected error in fetcher routine")
    assert MARK not in stream.getvalue()
    lines = stream.lines()
    assert len(lines) == 11
    assert lines[0]["message"] == "Failed: <ConsumerRecord>"
    assert lines[4]["message"] == "Failed: <ValueError>"
    assert lines[-1]["error"].startswith("ValueError in fail, test_logs.py:")


def test_messages_are_cut(stream: Stream) -> None:
    logging.getLogger("aiokafka").error("x" * 5_000)
    assert stream.lines()[0]["message"] == "x" * logs.MESSAGE_LENGTH_MAX


def test_a_flood_is_cut_per_logger_and_counted(stream: Stream) -> None:
    clock = [100.0]
    handler_of(clock)
    noisy, quiet = logging.getLogger("aiokafka.client"), logging.getLogger("aiohttp.server")
    for _ in range(logs.LINES_MAX + 30):
        noisy.error("again")
    quiet.error("once")
    assert Counter(line["logger"] for line in stream.lines()) == {
        "aiokafka.client": logs.LINES_MAX,
        "aiohttp.server": 1,
    }
    clock[0] += logs.WINDOW_S
    quiet.error("once more")
    noisy.error("again")
    lines = [(line["event"], line["logger"], line.get("lines")) for line in stream.lines()[logs.LINES_MAX + 1 :]]
    assert lines == [
        ("library.suppressed", "aiokafka.client", 30),
        ("library.message", "aiohttp.server", None),
        ("library.message", "aiokafka.client", None),
    ]


def test_a_flood_that_ended_is_counted_at_the_end(stream: Stream) -> None:
    handler = handler_of([0.0])
    for _ in range(logs.LINES_MAX + 5):
        logging.getLogger("aiokafka").error("again")
    handler.flush()
    handler.flush()
    assert [line["lines"] for line in stream.lines() if line["event"] == "library.suppressed"] == [5]


async def test_unhandled_exceptions_are_logged_by_type_and_place(stream: Stream) -> None:
    loop = asyncio.get_running_loop()
    logs.log_loop_errors(loop)
    done = asyncio.Event()

    def raise_error(value: str) -> None:
        done.set()
        raise ValueError(value)

    loop.call_soon(raise_error, MARK)
    await done.wait()
    await asyncio.sleep(0)
    loop.call_exception_handler({"message": "Unclosed AIOKafkaConnection"})
    assert MARK not in stream.getvalue()
    first, second = stream.lines()
    assert (first["event"], first["level"]) == ("loop.exception", "error")
    assert first["error"].startswith("ValueError in raise_error, test_logs.py:")
    assert second["error"] == "Unclosed AIOKafkaConnection"


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert logs.place_of(KeyError(MARK)) == "KeyError"


def test_muted_process_prints_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard output of a command may be a JSON document."""
    logs.mute()
    logs.logger().warning("lane.failed")
    logging.getLogger("aiokafka").error("Unable to connect")
    assert tuple(capsys.readouterr()) == ("", "")
