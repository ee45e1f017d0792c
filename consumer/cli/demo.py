"""`demo`: the real worker against an embedded broker, for half a minute, with a check of its result."""

import asyncio
import sys
import time
from collections import Counter
from contextlib import aclosing
from itertools import islice
from typing import Final

import click
import msgspec

from consumer.app.service import Service, running
from consumer.cli.exit_codes import FAILED, OK, exit_on_external_error
from consumer.cli.output import write_line
from consumer.cli.screen import Screen
from consumer.core.lifecycle import LIVE, RANKS
from consumer.core.record import Record
from consumer.core.state_codec import summary, without_source
from consumer.engine.choice import name_engine
from consumer.kafka.partition_reader import PartitionReader
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.telemetry import logs
from consumer.tools.correction_story import StoryFinder
from consumer.tools.replay import Replay
from consumer.tools.traffic_writer import TrafficWriter
from consumer.version import VERSION
from schemas.transition import Transition

_SETTLE_S = 30.0
_TICK_S = 0.5
_MEDIA_SHOWN = 5
_TRANSITION: Final = msgspec.json.Decoder(Transition)
_SAMPLES = {
    "consumed": "conversation_records_total",
    "transitions": "conversation_transitions_total",
    "corrections": "conversation_corrections_total",
}


@click.command()
@click.option("--seconds", type=click.IntRange(1, 3_600), default=20, show_default=True, help="How long traffic flows.")
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
        for line in _heading(settings, service, traffic):
            write_line(line)
        view = _View(service, len(drafts), StoryFinder())
        reading = asyncio.create_task(_find_story(settings, service, view.stories))
        try:
            started_s = time.monotonic()
            while view.written < len(drafts):
                due = int((time.monotonic() - started_s) * rate)
                await writer.write(drafts[view.written : due])
                view.written = min(due, len(drafts))
                view.draw()
                await asyncio.sleep(_TICK_S)
            await writer.flush()
            while _total(service, "consumed") < len(drafts) and time.monotonic() - started_s < seconds + _SETTLE_S:
                view.draw()
                await asyncio.sleep(_TICK_S)
            elapsed_s = time.monotonic() - started_s
            view.draw()
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        view.tell()
        return _summarize(service, drafts, settings, elapsed_s)


async def _find_story(settings: Settings, service: Service, stories: StoryFinder) -> None:
    """Read the transitions as any other service would, until one of them was corrected."""
    while not service.worker.lanes:  # noqa: ASYNC110 - the group assigns them, which no event tells
        await asyncio.sleep(_TICK_S)
    starts = dict.fromkeys(service.worker.lanes, 0)
    async with (
        PartitionReader(settings) as reader,
        aclosing(reader.read(settings.transitions_topic, starts, None)) as slices,
    ):
        async for log in slices:
            for record in log:
                stories.add(_TRANSITION.decode(record.value or b""))
            if stories.found is not None:
                return


def _heading(settings: Settings, service: Service, traffic: Traffic) -> list[str]:
    late, twice, broken = traffic.disorder, traffic.duplicates, traffic.broken
    return [
        f"conversation-consumer {VERSION}, {name_engine(settings.engine)} engine, on an embedded broker",
        f"  guarantee   {settings.delivery}: that broker has no transactions; on Kafka it is exactly_once",
        f"  live page   http://{settings.query_host}:{service.query_port}/",
        f"  metrics     http://{settings.admin_host}:{service.admin_port}/metrics",
        f"  disorder    {late:.0%} of the records come late, {twice:.0%} twice, {broken:.0%} are broken",
        "",
    ]


class _View:
    """What is shown while traffic flows."""

    def __init__(self, service: Service, total: int, stories: StoryFinder) -> None:
        self.written = 0
        """Records that were written so far."""
        self.stories = stories
        self._service = service
        self._total = total
        self._screen = Screen()
        self._started_s = time.monotonic()

    def draw(self) -> None:
        """Show the state of now: a block that is drawn again on a terminal, one line elsewhere."""
        consumed, transitions, corrections = (_total(self._service, name) for name in _SAMPLES)
        if not self._screen.is_redrawn:
            numbers = f"consumed {consumed}, transitions {transitions}, corrections {corrections}"
            write_line(f"  written {self.written} of {self._total}, {numbers}")
            return
        per_s = consumed / max(time.monotonic() - self._started_s, _TICK_S)
        live = ", ".join(f"{media} {count}" for media, count in _count_live(self._service).most_common(_MEDIA_SHOWN))
        self._screen.draw(
            [
                f"  in          {self.written} of {self._total} records, {consumed} consumed, {per_s:.0f} a second",
                f"  out         {transitions} transitions, {corrections} of them corrections",
                f"  live        {live or 'nothing yet'}",
                "",
                *self._story(),
            ]
        )

    def tell(self) -> None:
        """Tell the story where it is not in sight already."""
        if not self._screen.is_redrawn:
            for line in self._story():
                write_line(line)

    def _story(self) -> list[str]:
        story = self.stories.found
        return ["no correction yet"] if story is None else list(story.lines())


def _count_live(service: Service) -> Counter[str]:
    """Live communications by medium."""
    live: Counter[str] = Counter()
    for lane in service.worker.lanes.values():
        for (media, state), count in lane.engine.states.live_index.states.items():
            if RANKS.get(state, LIVE) <= LIVE:
                live[media] += count
    return live


def _total(service: Service, name: str) -> int:
    metric = _SAMPLES[name]
    families = service.metrics.registry.collect()
    return int(sum(s.value for family in families for s in family.samples if s.name == metric))


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
    write_line("next: docs/tutorial.md does this on a real Kafka and explains a correction")
    return OK if equal and consumed == len(drafts) else FAILED


def _replay_in_true_order(drafts: list[Draft], settings: Settings) -> dict[str, bytes]:
    """The states after the same records, without the duplicates and in the order in which they were created."""
    replay = Replay(settings.rules())
    in_true_order = sorted({draft.true_order: draft for draft in drafts}.items())
    for offset, (_, draft) in enumerate(in_true_order):
        replay.apply(Record(settings.input_topic, 0, offset, draft.timestamp_ms, draft.key, draft.value))
    replay.commit()
    return {key: without_source(state) for key, state in replay.store.items()}
