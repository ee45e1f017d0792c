"""`demo`: the real worker against an embedded broker, for half a minute, with a check of what it did."""

import asyncio
import sys
import time
from itertools import islice

import click

from consumer.adapters import logs
from consumer.adapters.kafka.writer import KafkaWriter
from consumer.cli.exits import FAILED, OK, exit_on_world_error
from consumer.cli.service import Service, running
from consumer.core.arrival import without_source
from consumer.core.known import Known, summary
from consumer.core.record import Record
from consumer.core.step import step
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records

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
    """See the main job: disordered traffic in, ordered state and transitions out. Needs no Kafka.

    \b
    Examples:
      conversation-consumer demo
      conversation-consumer demo --seconds 120 --rate 1000 --seed 7

    Exit codes: 0 as it should be; 1 the final state is not that of the records in true order; 2 wrong options.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    try:
        from consumer.adapters.kafka.embedded import EmbeddedBroker  # noqa: PLC0415 - only the demo needs librdkafka
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}: install conversation-consumer[demo]") from error
    with EmbeddedBroker() as broker, exit_on_world_error():
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
    async with running(settings) as service, KafkaWriter(settings) as writer:
        click.echo(f"metrics at http://{settings.admin_host}:{service.admin_port}/metrics")
        click.echo(f"live page at http://{settings.query_host}:{service.query_port}/")
        started_s = time.monotonic()
        written = 0
        while written < len(drafts):
            owed = int((time.monotonic() - started_s) * rate)
            await writer.write(drafts[written:owed])
            written = min(owed, len(drafts))
            _show(service, written, len(drafts))
            await asyncio.sleep(_TICK_S)
        await writer.flush()
        while _total(service, "consumed") < len(drafts) and time.monotonic() - started_s < seconds + _SETTLE_S:
            _show(service, written, len(drafts))
            await asyncio.sleep(_TICK_S)
        elapsed_s = time.monotonic() - started_s
        return _summarise(service, drafts, settings, elapsed_s)


def _total(service: Service, name: str) -> int:
    metric = _SAMPLES[name]
    families = service.metrics.registry.collect()
    return int(sum(s.value for family in families for s in family.samples if s.name == metric))


def _show(service: Service, written: int, of: int) -> None:
    told = ", ".join(f"{name} {_total(service, name)}" for name in _SAMPLES)
    click.echo(f"  written {written} of {of}, {told}")


def _summarise(service: Service, drafts: list[Draft], settings: Settings, elapsed_s: float) -> int:
    """Print what was done; returns `FAILED` if the final state is not that of the same records in true order."""
    click.echo("\nrecords by disposition")
    for family in service.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == _SAMPLES["consumed"] and sample.value:
                reason = sample.labels["reason"]
                click.echo(
                    f"  {sample.labels['disposition'] + (f' ({reason})' if reason else ''):36}{sample.value:8.0f}"
                )
    states = {key: value for lane in service.worker.lanes.values() for key, value in lane.store.items()}
    live = sum(summary(state).live for state in states.values())
    expected = _in_true_order(drafts, settings)
    equal = {key: without_source(state) for key, state in states.items()} == expected
    consumed = _total(service, "consumed")
    click.echo(f"transitions {_total(service, 'transitions')}, corrections {_total(service, 'corrections')}")
    click.echo(f"conversations {len(states)}, live communications {live}")
    click.echo(f"{consumed / elapsed_s:.0f} events per second over {elapsed_s:.0f} s (limited by the traffic)")
    click.echo(f"all {len(drafts)} records accounted for: {'yes' if consumed == len(drafts) else f'NO, {consumed}'}")
    click.echo(f"final state equals that of the same records in true order: {'yes' if equal else 'NO'}")
    return OK if equal and consumed == len(drafts) else FAILED


def _in_true_order(drafts: list[Draft], settings: Settings) -> dict[str, bytes]:
    """The states after the same records, once each and in the order in which things happened."""
    states: dict[str, Known] = {}
    stream_ms: int | None = None
    rules = settings.rules()
    once = {draft.true_order: draft for draft in drafts}
    for offset, order in enumerate(sorted(once)):
        draft = once[order]
        record = Record(settings.input_topic, 0, offset, draft.timestamp_ms, draft.key, draft.value)
        outcome = step(record, rules, stream_ms, states.get)
        stream_ms = outcome.stream_ms
        if outcome.known is not None:
            states[outcome.conversation_id] = outcome.known
    return {key: without_source(state.published) for key, state in states.items()}
