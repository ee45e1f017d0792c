"""`verify`: is what is published what the input says? Recomputes it, and lists what differs with both sides."""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import aclosing
from itertools import islice
from typing import Any

import click
import msgspec
from msgspec import Struct

from consumer.adapters import logs
from consumer.adapters.kafka.finding import refuse
from consumer.adapters.kafka.reader import KafkaReader
from consumer.adapters.kafka.records import Span
from consumer.cli.columns import columns, printable
from consumer.cli.exits import DIFFERENCES, OK, exit_on_world_error, settings_or_exit
from consumer.cli.progress import progress
from consumer.core import times
from consumer.core.record import Record
from consumer.runtime import bookmark
from consumer.runtime.ports import Committed, Misfit
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import describe_undecided
from consumer.runtime.verification import APART, Comparison, Shown, Verification, shown_of
from schemas.transition import Transition

_PER_CONVERSATION_MAX = 10
"""Differences shown of one conversation."""
_VALUE_LENGTH_MAX = 160
_TRANSITION = msgspec.json.Decoder(Transition)


class _Spans(Struct, frozen=True):
    """What is read of one partition of each topic."""

    letters: Span
    input: Span
    states: Span
    transitions: Span

    @property
    def records(self) -> int:
        """Offsets in all of them."""
        return sum(each.end - each.begin for each in (self.letters, self.input, self.states, self.transitions))


@click.command()
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Conversations shown.")
@click.option("--partition", "only", type=click.IntRange(0), multiple=True, help="Only this one; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per difference, then a summary.")
def verify(*, limit: int, only: tuple[int, ...], as_json: bool) -> None:
    """Recompute state and standing transitions from the input and compare them with what is published.

    Reads only, joins no group, and may run beside the workers: compared is what the group has committed. Memory is that
    of one lane: partitions are read one after the other, their states held as bytes, and of what is published a digest
    each. Run it with the settings of the workers: other rules give other states.

    What may differ by design is counted apart, with the reason, and is no difference. `source` and the context of
    transitions tell of arrival and are not compared. Where retention has deleted the beginning of the input, only
    conversations first seen after that can be verified, and the others are counted apart unless they are equal. A
    compacted input is refused: what it lacks cannot be known.

    \b
    Examples:
      conversation-consumer verify
      conversation-consumer verify --partition 3 --limit 100
      conversation-consumer verify --json | jq 'select(.kind == "difference")'

    Exit codes: 0 equal; 2 wrong options; 65 differences; 69 Kafka does not answer; 78 settings, permissions or topics
    are wrong; 130 interrupted.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.mute_libraries()
    with exit_on_world_error():
        sys.exit(asyncio.run(_verify(settings, limit, only, as_json=as_json)))


async def _verify(settings: Settings, limit: int, only: tuple[int, ...], *, as_json: bool) -> int:
    total, rows, began, shown = Comparison(), [], [], 0
    async with KafkaReader(settings) as reader:
        refuse([reader.compaction])
        partitions = sorted(set(only)) or list(range(reader.partitions))
        if partitions[-1] >= reader.partitions:
            raise Misfit(f"--partition: {settings.input_topic!r} has {reader.partitions} partitions, counted from 0")
        committed = {each: await reader.offset_of_group(each) for each in partitions}
        if not any(committed.values()):
            raise Misfit(
                f"the group {settings.group_id!r} (CC_GROUP_ID) has committed nothing of {settings.input_topic!r} "
                f"(CC_INPUT_TOPIC): check both, there is nothing to compare"
            )
        for partition in partitions:
            work = _Partition(settings, reader, partition)
            found = await work.compare()
            for told in await work.differences(islice(found.different, limit - shown)):
                _show(told, as_json=as_json)
            shown += min(limit - shown, len(found.different))
            total.add(found.comparison)
            rows.append((partition, work.spans.input, found.comparison))
            if work.spans.input.begin:
                began.append((partition, work.spans.input.begin, found.first_ms))
        for partition, end in (await reader.undecided(partitions)).items():
            what = describe_undecided(settings, partition, end, time.time_ns() // 1_000_000)
            click.echo(f"not compared, for no worker may read it yet: {': '.join(what)}", err=True)
    summary = _json_lines if as_json else _lines
    for line in summary(total, rows, began, shown):
        click.echo(line)
    return DIFFERENCES if total.different else OK


class _Partition:
    """Reading one partition of the four topics for a verification."""

    def __init__(self, settings: Settings, reader: KafkaReader, partition: int) -> None:
        self._settings = settings
        self._reader = reader
        self._partition = partition

    async def compare(self) -> Verification:
        """Read everything up to what the group has committed, and compare."""
        settings, reader, partition = self._settings, self._reader, self._partition
        committed = await reader.offset_of_group(partition)
        # The ends are asked for after the offset: everything that was committed with it is before them.
        self.spans = spans = await self._spans(committed)
        found = self._found = Verification(settings.rules(), settings.input_topic, spans.input.begin, spans.input.end)
        with progress(f"partition {partition}", spans.records) as advance:
            await self._read(settings.dead_letters_topic, spans.letters, advance, _each(found.take_letter))
            await self._read(settings.input_topic, spans.input, advance, found.take_input)
            await self._read(settings.state_topic, spans.states, advance, _each(found.take_state))
            found.begin_transitions(complete=spans.transitions.begin == 0)
            await self._read(settings.transitions_topic, spans.transitions, advance, _each(found.take_transition))
        latest = await reader.offset_of_group(partition)
        found.compare(None if latest is None else bookmark.parse(latest.metadata).stream_ms)
        return found

    async def differences(self, conversation_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Differences of these conversations with both sides; for that the outputs are read once more."""
        states: dict[str, bytes | None] = dict.fromkeys(conversation_ids)
        if not states:
            return []
        standing: dict[str, dict[str, Shown]] = defaultdict(dict)
        wanted = {each.encode(): each for each in states}

        def take_state(record: Record) -> None:
            if record.key in wanted and self._found.compares(record):
                states[wanted[record.key]] = record.value

        def take_transition(record: Record) -> None:
            if record.key in wanted and self._found.compares(record):
                operation = _TRANSITION.decode(record.value or b"")
                if operation.op == "assert":
                    standing[wanted[record.key]][operation.id] = shown_of(operation)
                else:
                    standing[wanted[record.key]].pop(operation.id, None)

        both = (self.spans.states.end - self.spans.states.begin) + (
            self.spans.transitions.end - self.spans.transitions.begin
        )
        with progress(f"partition {self._partition}: both sides", both) as advance:
            await self._read(self._settings.state_topic, self.spans.states, advance, _each(take_state))
            await self._read(self._settings.transitions_topic, self.spans.transitions, advance, _each(take_transition))
        told = []
        for conversation_id, published in states.items():
            every = list(self._found.differences(conversation_id, published, standing[conversation_id]))
            told += [
                {
                    "kind": "difference",
                    "partition": self._partition,
                    "conversationId": conversation_id,
                    "what": what,
                    **msgspec.to_builtins(each),
                    **({"more": len(every) - _PER_CONVERSATION_MAX} if number == _PER_CONVERSATION_MAX else {}),
                }
                for number, (what, each) in enumerate(every[:_PER_CONVERSATION_MAX], 1)
            ]
        return told

    async def _spans(self, committed: Committed | None) -> _Spans:
        settings, partition = self._settings, self._partition
        source = await self._reader.span(settings.input_topic, partition)
        bound = source.begin if committed is None else max(source.begin, min(source.end, committed.next_offset))
        return _Spans(
            await self._reader.span(settings.dead_letters_topic, partition),
            Span(source.begin, bound),
            await self._reader.span(settings.state_topic, partition),
            await self._reader.span(settings.transitions_topic, partition),
        )

    async def _read(
        self, topic: str, span: Span, advance: Callable[[int], None], take: Callable[[list[Record]], None]
    ) -> None:
        at = span.begin
        async with aclosing(self._reader.read(topic, self._partition, span)) as slices:
            async for records in slices:
                try:
                    take(records)
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise Misfit(
                        f"partition {self._partition} of {topic!r} holds a record before offset "
                        f"{records[-1].next_offset} that this service does not write: others write to it, or another "
                        f"version of this service did"
                    ) from error
                if records:
                    advance(records[-1].next_offset - at)
                    at = records[-1].next_offset
        advance(span.end - at)


def _each(take: Callable[[Record], None]) -> Callable[[list[Record]], None]:
    def take_all(records: list[Record]) -> None:
        for record in records:
            take(record)

    return take_all


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    where = f"partition {told['partition']} conversation {told['conversationId']} {told['what']} {told['path']}"
    click.echo(printable(where))
    for side in ("published", "recomputed"):
        text = "nothing" if told[side] is None else json.dumps(told[side], ensure_ascii=False)
        cut = text if len(text) <= _VALUE_LENGTH_MAX else f"{text[:_VALUE_LENGTH_MAX]}..."
        click.echo(printable(f"    {side:10}  {cut}"))
    if "more" in told:
        click.echo(f"    and {told['more']} more of this conversation")


_Row = tuple[int, Span, Comparison]
_Began = tuple[int, int, int | None]


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else times.published(milliseconds)


def _lines(total: Comparison, rows: list[_Row], began: list[_Began], shown: int) -> Iterable[str]:
    heads = ("partition", "offsets", "conversations", "equal", "different", "apart", "transitions", "wrong")
    yield from columns(
        [
            heads,
            *(
                tuple(
                    map(
                        str,
                        (partition, f"{span.begin}-{span.end}", each.conversations, each.equal, each.different,
                         each.apart.total(), each.transitions, each.different_transitions),
                    )
                )
                for partition, span, each in rows
            ),
        ]
    )  # fmt: skip
    for reason, meaning in APART.items():
        if total.apart[reason]:
            yield f"apart: {total.apart[reason]} {meaning}"
    for partition, begin, first_ms in began:
        yield (
            f"partition {partition} of the input no longer holds what was before offset {begin}: only conversations "
            f"first seen after {_time(first_ms) or 'that'} can be verified"
        )
    if total.different > shown:
        yield f"{total.different - shown} more conversations differ: see --limit"
    yield (
        f"{'DIFFERENT' if total.different else 'equal'}: {total.records} records recomputed, {total.equal} of "
        f"{total.conversations} conversations equal, {total.different} different, {total.apart.total()} apart"
    )


def _json_lines(total: Comparison, rows: list[_Row], began: list[_Began], shown: int) -> Iterable[str]:
    yield json.dumps(
        {
            "kind": "summary",
            "verdict": "different" if total.different else "equal",
            **_counts(total),
            "shown": shown,
            "partitions": [
                {"partition": partition, "from": span.begin, "to": span.end, **_counts(each)}
                for partition, span, each in rows
            ],
            "inputDeleted": [
                {"partition": partition, "before": begin, "firstTime": _time(first_ms)}
                for partition, begin, first_ms in began
            ],
        }
    )


def _counts(found: Comparison) -> dict[str, Any]:
    return {
        "records": found.records,
        "conversations": found.conversations,
        "equal": found.equal,
        "different": found.different,
        "apart": dict(found.apart),
        "transitions": found.transitions,
        "differentTransitions": found.different_transitions,
    }
