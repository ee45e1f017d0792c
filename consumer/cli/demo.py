"""`demo`: the real worker against an embedded broker, for half a minute, with a check of its result."""

import asyncio
import sys
import time
from itertools import islice

import click

from consumer.app.service import Service, running
from consumer.cli.exit_codes import FAILED, OK, exit_on_external_error
from consumer.cli.output import write_line
from consumer.core.record import Record
from consumer.core.state_codec import summary, without_source
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.telemetry import logs
from consumer.tools.replay import Replay
from consumer.tools.traffic_writer import TrafficWriter

_SETTLE_S = 30.0
_TICK_S = 0.5
_SAMPLES = {
    "consumed": "conversation_records_total",
    "transitions": "conversation_transitions_total",
    "corrections": "conversation_corrections_total",
}


@click.command()
@click.option("--seconds", type=click.IntRange(1, 3_600), default=25, show_default=True, help="How long traffic flows.")
@click.option("--rate", type=click.IntRange(10, 5_000), default=400, show_default=True, help="Records per second.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same traffic.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port of /metrics; 0 takes a free one.")
def demo(*, seconds: int, rate: int, seed: int, port: int) -> None:
    """Watch the service at work: disordered traffic in, ordered state and transitions out. Needs no Kafka.

    \b
    Examples:
      conversation-consumer demo
      conversation-consumer demo --seconds 120 --rate 1000 --seed 7

    Exit codes: 0 success; 1 the final state is not that of the records in true order; 2 wrong options.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    try:
        from consumer.kafka.embedded import EmbeddedBroker  # noqa: PLC0415 - only the demo needs librdkafka
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}: install conversation-consumer[demo]") from error
    with EmbeddedBroker() as broker, exit_on_external_error():
        settings = Settings(
            bootstrap_servers=broker.bootstrap_servers,
            delivery="at_least_once",
            commit_interval_ms=250,
            admin_port=port,
            query_port=0,
            log_level="warning",
        )
        logs.configure(settings)
        broker.create_topics(settings.topics)
        sys.exit(asyncio.run(_demo(settings, seconds, rate, seed)))


async def _demo(settings: Settings, seconds: int, rate: int, seed: int) -> int:
    start_ms = time.time_ns() // 1_000_000
    traffic = Traffic(seed=seed, start_ms=start_ms, records_per_s=rate / 1.3, conversations=max(10, rate // 8))
    drafts = list(islice(records(traffic), seconds * rate))
    async with running(settings) as service, TrafficWriter(settings) as writer:
        write_line(f"metrics at http://{settings.admin_host}:{service.admin_port}/metrics")
        write_line(f"live page at http://{settings.query_host}:{service.query_port}/")
        started_s = time.monotonic()
        written = 0
        while written < len(drafts):
            due = int((time.monotonic() - started_s) * rate)
            await writer.write(drafts[written:due])
            written = min(due, len(drafts))
            _show(service, written, len(drafts))
            await asyncio.sleep(_TICK_S)
        await writer.flush()
        while _total(service, "consumed") < len(drafts) and time.monotonic() - started_s < seconds + _SETTLE_S:
            _show(service, written, len(drafts))
            await asyncio.sleep(_TICK_S)
        elapsed_s = time.monotonic() - started_s
        return _summarize(service, drafts, settings, elapsed_s)


def _total(service: Service, name: str) -> int:
    metric = _SAMPLES[name]
    families = service.metrics.registry.collect()
    return int(sum(s.value for family in families for s in family.samples if s.name == metric))


def _show(service: Service, written: int, of: int) -> None:
    totals = ", ".join(f"{name} {_total(service, name)}" for name in _SAMPLES)
    write_line(f"  written {written} of {of}, {totals}")


def _summarize(service: Service, drafts: list[Draft], settings: Settings, elapsed_s: float) -> int:
    """Print the result; returns `FAILED` if a record is missing or the final state is not that of the true order."""
    write_line()
    write_line("records by disposition")
    for family in service.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == _SAMPLES["consumed"] and sample.value:
                reason = sample.labels["reason"]
                write_line(
                    f"  {sample.labels['disposition'] + (f' ({reason})' if reason else ''):36}{sample.value:8.0f}"
                )
    states = {key: value for lane in service.worker.lanes.values() for key, value in lane.engine.states.items()}
    live = sum(summary(state).live for state in states.values())
    expected = _replay_in_true_order(drafts, settings)
    equal = {key: without_source(state) for key, state in states.items()} == expected
    consumed = _total(service, "consumed")
    write_line(f"transitions {_total(service, 'transitions')}, corrections {_total(service, 'corrections')}")
    write_line(f"conversations {len(states)}, live communications {live}")
    write_line(f"{consumed / elapsed_s:.0f} events per second over {elapsed_s:.0f} s (limited by the traffic)")
    write_line(f"all {len(drafts)} records accounted for: {'yes' if consumed == len(drafts) else f'NO, {consumed}'}")
    write_line(f"final state equals that of the same records in true order: {'yes' if equal else 'NO'}")
    return OK if equal and consumed == len(drafts) else FAILED


def _replay_in_true_order(drafts: list[Draft], settings: Settings) -> dict[str, bytes]:
    """The states after the same records, without the duplicates and in the order in which they were created."""
    replay = Replay(settings.rules())
    in_true_order = sorted({draft.true_order: draft for draft in drafts}.items())
    for offset, (_, draft) in enumerate(in_true_order):
        replay.apply(Record(settings.input_topic, 0, offset, draft.timestamp_ms, draft.key, draft.value))
    replay.commit()
    return {key: without_source(state) for key, state in replay.store.items()}
