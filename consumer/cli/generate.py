"""`generate`: realistic traffic to the input topic or to a file."""

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.adapters.kafka_writer import KafkaWriter
from consumer.cli.exits import exit_on_world_error, settings_or_exit
from consumer.simulator.recording import lines, read
from consumer.simulator.traffic import Draft, Traffic, records

_SHARE = click.FloatRange(0, 1)
_TICK_S = 0.05
_BURST = 500
_DEFAULT = Traffic()


@click.command()
@click.option("--count", type=click.IntRange(1, 100_000_000), default=10_000, show_default=True, help="Records to write.")
@click.option("--rate", type=click.FloatRange(0, 1_000_000), default=0.0, help="Records per second; 0 is as fast as possible.")
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True, help="The same seed gives the same records.")
@click.option("--start-ms", type=int, help="Epoch milliseconds at which the traffic begins; now if not given.")
@click.option("--conversations", type=click.IntRange(1), default=_DEFAULT.conversations, show_default=True, help="Under way at once.")
@click.option("--records-per-s", type=float, default=_DEFAULT.records_per_s, show_default=True, help="Pace of the traffic's own time.")
@click.option("--disorder", type=_SHARE, default=_DEFAULT.disorder, show_default=True, help="Share delivered late.")
@click.option("--delay-s-max", type=float, default=_DEFAULT.delay_s_max, show_default=True, help="How late at most.")
@click.option("--duplicates", type=_SHARE, default=_DEFAULT.duplicates, show_default=True, help="Share delivered twice.")
@click.option("--broken", type=_SHARE, default=_DEFAULT.broken, show_default=True, help="Share of broken records besides.")
@click.option("--flat", type=_SHARE, default=_DEFAULT.flat, show_default=True, help="Share also in the flat shape.")
@click.option("--eventbridge", type=_SHARE, default=_DEFAULT.eventbridge, show_default=True, help="Share in that envelope.")
@click.option("--bare", type=_SHARE, default=_DEFAULT.bare, show_default=True, help="Share without an envelope.")
@click.option("--ignorable", type=_SHARE, default=_DEFAULT.ignorable, show_default=True, help="Share of other frames besides.")
@click.option("--output", type=click.Path(dir_okay=False, allow_dash=True), help="Write to a file instead, - for stdout.")
@click.option("--input", "recording", type=click.Path(dir_okay=False, exists=True), help="Replay such a file.")
def generate(
    *, count: int, rate: float, start_ms: int | None, output: str | None, recording: str | None, **shape: Any
) -> None:
    """Write realistic conversation updates to CC_INPUT_TOPIC."""
    start_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
    try:
        traffic = msgspec.convert({**shape, "start_ms": start_ms}, Traffic)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"seed {traffic.seed}, start {traffic.start_ms} ms, {count} records", err=True)
    try:
        if output is not None:
            with click.open_file(output, "wb") as file:
                file.writelines(lines(islice(records(traffic), count)))
            return
        settings = settings_or_exit()
        drafts = _replayed(recording) if recording else records(traffic)
        with exit_on_world_error():
            asyncio.run(_write(KafkaWriter(settings), islice(drafts, count), rate))
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{recording}: not a recording of `generate`: {error}") from error
    except KeyboardInterrupt:
        sys.exit(130)


def _replayed(recording: str) -> Iterator[Draft]:
    with Path(recording).open("rb") as file:
        yield from read(file)


async def _write(writer: KafkaWriter, drafts: Iterator[Draft], rate: float) -> None:
    async with writer:
        started_s, written = time.monotonic(), 0
        while True:
            owed = int((time.monotonic() - started_s) * rate) - written if rate else _BURST
            burst = list(islice(drafts, min(owed, _BURST))) if owed > 0 else []
            await writer.write(burst)
            written += len(burst)
            if owed > 0 and not burst:
                break
            if rate:
                await asyncio.sleep(_TICK_S)
        await writer.flush()
    click.echo(f"wrote {written} records in {time.monotonic() - started_s:.1f} s", err=True)
