"""Benchmarks on a real Kafka: `python -m tests.benchmarks [PART ...] [--events 50000] [--rounds 3] ...`.

The parts run one after the other. A part prints its results as JSON lines, and the figures of every run on standard
error. At the end stands a table of the targets that were measured. The default parts are throughput and latency. Every
process, the broker too, runs on this machine: compare ratios within one run, never figures of two machines.
"""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from consumer.simulator.relay import FRAMES
from tests.benchmarks import growth, handover, latency, restore, scale, targets, throughput
from tests.benchmarks.options import BOUNDS, Line, Options
from tests.benchmarks.scratch import Scratch
from tests.live.broker import find_broker

_PARTS: dict[str, Callable[[Scratch, Options], AsyncIterator[Line]]] = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "restore": restore.restore,
    "churn": restore.churn,
    "partitions": growth.partitions,
    "events": growth.events,
    "disorder": growth.disorder,
    "conversations": growth.conversations,
    "handover": handover.measure,
    "scale": scale.measure,
}
_DEFAULT = ("throughput", "latency")


async def _run(bootstrap_servers: str, parts: list[str], options: Options) -> None:
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as logs:
        for part in parts:
            async with Scratch(bootstrap_servers, Path(logs)) as scratch:
                async for line in _PARTS[part](scratch, options):
                    print(msgspec.json.encode(line).decode(), flush=True)
                    lines.append(line)
    print(*targets.make_table(lines), sep="\n")


def _read_options(given: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    values = {name: getattr(given, name) for name in BOUNDS}
    for name, (least, most) in BOUNDS.items():
        if not least <= values[name] <= most:
            parser.error(f"--{name.replace('_', '-')} must be from {least} to {most}")
    return Options(**values, framings=tuple(given.framing))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure on a real Kafka.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--framing", action="append", default=[], choices=FRAMES, help="of the records of throughput")
    for field in msgspec.structs.fields(Options):
        if field.name not in BOUNDS:
            continue
        least, most = BOUNDS[field.name]
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            default=field.default,
            help=f"from {least} to {most}; {field.default} if not given",
        )
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in _PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]!r}: choose from {', '.join(_PARTS)}")
    options = _read_options(given, parser)
    if not Path("/proc/self/stat").exists():
        sys.exit("needs Linux, whose /proc has the CPU time of the worker")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a new partition has no leader yet, and aiokafka retries
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    broker = find_broker(is_measured=True)
    if isinstance(broker, str):
        sys.exit(f"needs a real Kafka: {broker}")
    try:
        asyncio.run(_run(broker.bootstrap_servers, given.parts or list(_DEFAULT), options))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
