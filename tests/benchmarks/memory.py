"""What a worker needs for the conversations that it knows: memory for each, and time to restore them.

`python -m tests.benchmarks.memory [--conversations 1000000] [--churn-minutes 10] [--updates-per-s 300]`. The states are
those of generated traffic, written to the state topic of a real Kafka under as many conversation ids as asked for. Then
`python -m consumer run` restores them, and updates of conversations chosen at random change them for a while.
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from consumer.adapters.kafka_writer import KafkaWriter
from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.simulator.traffic import Draft, Traffic, records
from tests.live.broker import find_broker
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms

_CONVERSATIONS_MAX = 5_000_000
_MINUTES_MAX = 60
_RATE_MAX = 2_000
_TEMPLATES_FROM = 30_000
_AGO_MS = 3_600_000
_RESTORE_S = 900.0
_STEP_S = 30.0
_LOOK_S = 15.0


class Template(msgspec.Struct, frozen=True):
    """A conversation to be multiplied: its state, and the last update that it had."""

    conversation_id: bytes
    state: bytes
    update: bytes


def templates() -> list[Template]:
    """Conversations as generated traffic leaves them, most of them ended, as in life."""
    states: dict[str, Known] = {}
    updates: dict[str, bytes] = {}
    stream_ms = None
    for offset, draft in enumerate(islice(records(Traffic(start_ms=now_ms() - _AGO_MS)), _TEMPLATES_FROM)):
        outcome = step(
            Record("t", 0, offset, draft.timestamp_ms, draft.key, draft.value), Rules(), stream_ms, states.get
        )
        stream_ms = outcome.stream_ms
        if outcome.known is not None:
            states[outcome.conversation_id] = outcome.known
            updates[outcome.conversation_id] = draft.value
    return [Template(key.encode(), known.published, updates[key]) for key, known in states.items()]


def _id(number: int) -> bytes:
    return str(uuid.UUID(int=number + 1)).encode()


def _states(made: list[Template], count: int) -> Iterator[Draft]:
    for number in range(count):
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.state.replace(template.conversation_id, key), now_ms(), number)


def _updates(made: list[Template], count: int, chance: random.Random) -> Iterator[Draft]:
    """Endless news of conversations chosen at random."""
    while True:
        number = chance.randrange(count)
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.update.replace(template.conversation_id, key), now_ms(), number)


async def _restored(worker: WorkerProcess) -> float:
    """Wait until all lanes are open; seconds since the group assigned them."""
    await worker.logged("group.assigned", _STEP_S)
    started_s = time.monotonic()
    async with asyncio.timeout(_RESTORE_S):
        while len(worker.events("lane.opened")) < PARTITIONS:
            if worker.exit_code is not None:
                raise RuntimeError(f"the worker ended: {worker.text()[-4_000:]}")
            await asyncio.sleep(0.05)
    return time.monotonic() - started_s


async def _churn(
    pipeline: Pipeline, worker: WorkerProcess, news: Iterator[Draft], minutes: float, per_s: int
) -> list[int]:
    """Write updates at a steady pace; the resident bytes of the worker, every so often."""
    began_s, written, resident, look_s = time.monotonic(), 0, [worker.resident_bytes()], 0.0
    async with KafkaWriter(pipeline.settings) as writer:
        while (elapsed_s := time.monotonic() - began_s) < minutes * 60:
            due = int(elapsed_s * per_s) - written
            written += await writer.write(islice(news, due))
            await writer.flush()
            if elapsed_s - look_s >= _LOOK_S:
                look_s = elapsed_s
                resident.append(worker.resident_bytes())
            await asyncio.sleep(0.1)
    await pipeline.caught_up(_STEP_S * 4)
    resident.append(worker.resident_bytes())
    sums = await worker.metrics()
    print(f"churn: {written} updates in {minutes:g} min, {sums['conversation_records_total']:.0f} consumed")
    return resident


async def _measure(bootstrap_servers: str, count: int, minutes: float, per_s: int) -> None:
    made = templates()
    value_bytes = statistics.mean(len(made[number % len(made)].state) for number in range(count))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as logs:
        pipeline = Pipeline(bootstrap_servers, f"memory-{uuid.uuid4().hex[:8]}", Path(logs))
        try:
            await pipeline.create()
            worker = await pipeline.start_worker()
            await _restored(worker)
            idle_bytes = worker.resident_bytes()
            await worker.end(signal.SIGTERM, _STEP_S)
            states_topic = msgspec.structs.replace(pipeline.settings, input_topic=pipeline.settings.state_topic)
            async with KafkaWriter(states_topic) as writer:
                await writer.write(_states(made, count))
                await writer.flush()
            worker = await pipeline.start_worker()
            seconds = await _restored(worker)
            known = worker.resident_bytes() - idle_bytes
            print(f"{count} conversations, {value_bytes:.0f} bytes of state each on average, {PARTITIONS} partitions")
            line = {
                "name": "restore",
                "conversations": count,
                "conversations_per_s": round(count / seconds),
                "seconds": round(seconds, 1),
                "value_bytes": round(value_bytes),
                "resident_bytes_per_conversation": round(known / count),
                "overhead_bytes_per_conversation": round(known / count - value_bytes),
            }
            print(msgspec.json.encode(line).decode())
            if minutes:
                resident = await _churn(pipeline, worker, _updates(made, count, random.Random(1)), minutes, per_s)
                line = {"name": "churn", "minutes": minutes, "first_bytes": resident[0], "last_bytes": resident[-1],
                        "most_bytes": max(resident), "of_first": round(resident[-1] / resident[0], 3)}  # fmt: skip
                print(msgspec.json.encode(line).decode())
            if await worker.end(signal.SIGTERM, _STEP_S):
                raise RuntimeError(f"the worker failed: {worker.text()[-4_000:]}")
        finally:
            await pipeline.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.memory", description="Measure memory and restore."
    )
    parser.add_argument("--conversations", type=int, default=1_000_000, help=f"up to {_CONVERSATIONS_MAX}")
    parser.add_argument("--churn-minutes", type=float, default=10, help=f"of updates afterwards, up to {_MINUTES_MAX}")
    parser.add_argument("--updates-per-s", type=int, default=300, help=f"up to {_RATE_MAX}")
    given = parser.parse_args()
    if not (
        0 < given.conversations <= _CONVERSATIONS_MAX
        and 0 <= given.churn_minutes <= _MINUTES_MAX
        and 0 < given.updates_per_s <= _RATE_MAX
    ):
        parser.error("an argument is out of bounds")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    broker = find_broker()
    if isinstance(broker, str):
        sys.exit(f"needs a real Kafka: {broker}")
    try:
        asyncio.run(_measure(broker.bootstrap_servers, given.conversations, given.churn_minutes, given.updates_per_s))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
