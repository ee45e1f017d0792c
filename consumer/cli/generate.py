"""`generate`: realistic traffic to the input topic or to a file."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import click

from consumer.cli.exit_codes import exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_line
from consumer.cli.progress import progress
from consumer.settings import Settings
from consumer.simulator.recording import LINE_BYTES_MAX, RecordingError, lines, read
from consumer.simulator.relay import FRAMES, frame
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.tools.traffic_writer import TrafficWriter

_COUNT = 10_000
_COUNT_MAX = 100_000_000
_FRAMINGS_MAX = 8
"""Each may double the size of a value."""
_SHARE = click.FloatRange(0, 1)
_TICK_S = 0.05
_BURST = 500
_DEFAULT = Traffic()

_option = partial(click.option, show_default=True)


@click.command()
@add_connection
@click.option("--topic", help="Topic to write to; CC_INPUT_TOPIC if not given.")
@click.option("--count", type=click.IntRange(1, _COUNT_MAX), help=f"Records; {_COUNT} or all of --input if not given.")
@_option("--rate", type=click.FloatRange(0, 1_000_000), default=0.0, help="Per second; 0 is as fast as possible.")
@_option("--seed", type=int, default=_DEFAULT.seed, help="The same seed and start give the same records.")
@click.option("--start-ms", type=int, help="Epoch milliseconds at which the traffic begins; now if not given.")
@_option("--conversations", type=int, default=_DEFAULT.conversations, help="Under way at the same time.")
@_option(
    "--records-per-s",
    type=float,
    default=_DEFAULT.records_per_s,
    help="Pace of the traffic's own time; where --rate is faster, its times run ahead of the clock.",
)
@_option("--disorder", type=_SHARE, default=_DEFAULT.disorder, help="Share delivered late.")
@_option("--delay-s-max", type=float, default=_DEFAULT.delay_s_max, help="How late at most, in its own time.")
@_option("--duplicates", type=_SHARE, default=_DEFAULT.duplicates, help="Share delivered twice.")
@_option("--broken", type=_SHARE, default=_DEFAULT.broken, help="Share of broken records.")
@_option("--flat", type=_SHARE, default=_DEFAULT.flat, help="Share published in the flat shape as well.")
@_option("--eventbridge", type=_SHARE, default=_DEFAULT.eventbridge, help="Share in that envelope.")
@_option("--bare", type=_SHARE, default=_DEFAULT.bare, help="Share without an envelope; the rest is WebSocket.")
@_option("--ignorable", type=_SHARE, default=_DEFAULT.ignorable, help="Share of frames that are not updates.")
@click.option(
    "--framing",
    "framings",
    metavar="FRAME",
    type=click.Choice(FRAMES),
    multiple=True,
    help=f"What a relay puts around each record, or how it spells keys; several times from the outermost on, of "
    f"{', '.join(FRAMES)}. Nothing if not given.",
)
@click.option("--output", type=click.File("wb", lazy=True), help="Write JSON lines to a file instead, - for stdout.")
@click.option("--input", "recording", type=click.File("rb"), help="Replay such a file, - for stdin.")
def generate(
    *,
    topic: str | None,
    count: int | None,
    rate: float,
    start_ms: int | None,
    output: BinaryIO | None,
    recording: BinaryIO | None,
    framings: tuple[str, ...],
    **shape: Any,
) -> None:
    """Write realistic conversation updates to the input topic, or to a file.

    \b
    Examples:
      conversation-consumer generate --count 20000 --rate 500 --seed 1
      conversation-consumer generate --disorder 0.5 --duplicates 0.2 --output traffic.jsonl
      conversation-consumer generate --input traffic.jsonl --topic conversation-updates
      conversation-consumer generate --framing confluent --framing key_text

    Exit codes: 0 written; 1 not a recording, or the file cannot be written; 2 wrong options;
    69 the broker does not answer; 78 settings, permissions or topic are wrong; 130 interrupted.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    if output is not None and recording is not None:
        raise click.UsageError("--output and --input exclude each other: a recording is already a file")
    if len(framings) > _FRAMINGS_MAX:
        raise click.UsageError(f"--framing may be given {_FRAMINGS_MAX} times at most")
    drafts: Iterator[Draft]
    if recording is not None:
        drafts = islice(read(iter(partial(recording.readline, LINE_BYTES_MAX), b"")), count or _COUNT_MAX)
    else:
        count = count or _COUNT
        drafts = islice(_simulate(start_ms, shape), count)
    drafts = frame(drafts, framings)
    try:
        if output is not None:
            written = _save(output, drafts, count)
        else:
            settings = settings_or_exit(**({} if topic is None else {"CC_INPUT_TOPIC": topic}))
            with exit_on_external_error():
                written = asyncio.run(_produce(settings, drafts, rate, count))
    except RecordingError as error:
        raise click.ClickException(f"--input: {error}") from error
    write_line(f"wrote {written} records", err=True)


def _simulate(start_ms: int | None, shape: dict[str, Any]) -> Iterator[Draft]:
    start_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
    try:
        traffic = Traffic(start_ms=start_ms, **shape)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    write_line(f"--seed {traffic.seed} --start-ms {start_ms} repeats these records", err=True)
    return records(traffic)


def _save(file: BinaryIO, drafts: Iterator[Draft], count: int | None) -> int:
    written = 0
    encoded = lines(drafts)
    try:
        with _progress(file, count) as advance:
            while burst := list(islice(encoded, _BURST)):
                for line in burst:
                    file.write(line)
                    written += 1
                advance(len(burst))
        file.flush()
    except BrokenPipeError:
        raise  # the reader of the pipe has closed it; click ends quietly
    except OSError as error:
        raise click.ClickException(f"--output: {error.strerror} after {written} records") from error
    return written


def _progress(file: BinaryIO, count: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """No progress bar where the terminal shows the records."""
    return nullcontext(lambda _: None) if file.isatty() else progress("writing", count)


async def _produce(settings: Settings, drafts: Iterator[Draft], rate: float, count: int | None) -> int:
    """Write all drafts and return how many; no faster than `rate` per second unless that is 0."""
    async with TrafficWriter(settings) as writer:
        with progress("writing", count) as advance:
            written = await _write(writer, drafts, rate, advance)
        await writer.flush()
    return written


async def _write(writer: TrafficWriter, drafts: Iterator[Draft], rate: float, advance: Callable[[int], None]) -> int:
    started_s, written = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - started_s) * rate) - written if rate else _BURST
        if due > 0:
            burst = await writer.write(islice(drafts, min(due, _BURST)))
            written += burst
            advance(burst)
            if not burst:
                return written
        if rate:
            await asyncio.sleep(_TICK_S)
