"""`inspect`: what is known of one conversation, what happened in it, and which record said so."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import click
import msgspec
from msgspec import Struct

from consumer.adapters import logs
from consumer.adapters.kafka.reader import KafkaReader
from consumer.adapters.kafka.records import Span, partition_of
from consumer.adapters.kafka.state_lookup import KafkaStateLookup
from consumer.cli.columns import printable
from consumer.cli.exits import NOT_FOUND, OK, exit_on_world_error, settings_or_exit
from consumer.cli.options import PublishedTime
from consumer.cli.progress import progress
from consumer.cli.story import Numbers, end_lines, numbers, record_lines, state_lines
from consumer.core.arrival import without_source
from consumer.core.explain import Explanation, explained
from consumer.core.record import Record
from consumer.core.view import communications
from consumer.runtime.lookup import Unfinished
from consumer.runtime.ports import Misfit, Unreachable
from consumer.runtime.replay import Replay
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import describe_undecided
from schemas.state import ConversationState

_LOOK_S = 600.0
_STATE = msgspec.json.Decoder(ConversationState)


class _Asked(Struct, frozen=True):
    conversation_id: str
    as_of: str | None
    why: bool
    as_json: bool
    partition: int | None


@click.command()
@click.argument("conversation_id", metavar="ID")
@click.option("--why", is_flag=True, help="Also every record of it still in the input topic, and what each changed.")
@click.option(
    "--as-of", metavar="TIME", type=PublishedTime(), help="What had happened by then, as known now. ISO, UTC."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: the conversation, then a line per record.")
@click.option(
    "--partition",
    type=click.IntRange(0),
    help="Where to look, if the input is not keyed by Kafka's own partitioner (murmur2).",
)
def inspect(*, conversation_id: str, why: bool, as_of: str | None, as_json: bool, partition: int | None) -> None:
    """Show a conversation's state and timeline, read from Kafka. Needs no worker and changes nothing.

    \b
    Examples:
      conversation-consumer inspect ID
      conversation-consumer inspect ID --as-of 2026-01-31T09:00:00Z
      conversation-consumer inspect ID --why
      conversation-consumer inspect ID --why --json | jq 'select(.kind == "record") | .effects'

    Exit codes: 0 found; 2 wrong options; 66 no such conversation in the state topic; 69 Kafka does not answer;
    78 settings, permissions or topics are wrong; 130 interrupted.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.mute_libraries()
    asked = _Asked(conversation_id, as_of, why, as_json, partition)
    with exit_on_world_error():
        sys.exit(asyncio.run(_inspect(settings, asked)))


async def _inspect(settings: Settings, asked: _Asked) -> int:
    key = asked.conversation_id.encode("utf-8", "surrogateescape")
    async with KafkaReader(settings) as reader:
        home = partition_of(key, reader.partitions) if asked.partition is None else asked.partition
        if home >= reader.partitions:
            raise Misfit(f"--partition: {settings.input_topic!r} has {reader.partitions} partitions, counted from 0")
        published = await _published(settings, home, key)
        numbered = _show_state(settings, asked, home, published)
        undecided = (await reader.undecided([home])).get(home)
        if undecided is not None:
            what = describe_undecided(settings, home, undecided, time.time_ns() // 1_000_000)
            click.echo(f"there may be more of this conversation: {': '.join(what)}", err=True)
        if asked.why:
            span = await reader.span(settings.input_topic, home)
            if undecided is not None:  # what follows is not to be had
                span = Span(span.begin, max(span.begin, undecided.stable))
            await _show_records(settings, reader, asked, home, span, published, numbered)
    return OK if published is not None else NOT_FOUND


async def _published(settings: Settings, partition: int, key: bytes) -> bytes | None:
    """The newest committed state of a conversation, None if there is none."""
    found = await KafkaStateLookup(settings, _LOOK_S).newest(partition, key)
    if isinstance(found, Unfinished):
        raise Unreachable(
            f"partition {partition} of {settings.state_topic!r} could not be read within {_LOOK_S:g} s, only back to "
            f"offset {found.read_from}: try again nearer to the brokers"
        )
    return found.state


def _show_state(settings: Settings, asked: _Asked, partition: int, published: bytes | None) -> Numbers:
    """Show what is known; the numbers under which communications were shown."""
    if published is None:
        if asked.as_json:
            _echo_json("conversation", conversationId=asked.conversation_id, partition=partition, state=None)
        more = "" if asked.why else "; --why shows its records that are still in the input topic"
        click.echo(
            f"no conversation {asked.conversation_id!r} in partition {partition} of {settings.state_topic!r}: not seen "
            f"yet, dead-lettered, evicted, or in another partition (see --partition){more}",
            err=True,
        )
        return {}
    try:
        state = _STATE.decode(published)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misfit(
            f"{settings.state_topic!r} (CC_STATE_TOPIC) holds no state of this conversation but something else: "
            f"others write to it, or another version of this service did"
        ) from error
    shown = communications(state, settings.park_cycles_max, asked.as_of)
    if asked.as_json:
        _echo_json(
            "conversation",
            conversationId=asked.conversation_id,
            partition=partition,
            asOf=asked.as_of,
            communications=msgspec.to_builtins(shown),
            state=msgspec.to_builtins(state),
        )
        return {}
    _echo_lines(state_lines(state, partition, shown, asked.as_of))
    return numbers(shown)


class _Why:
    """The records of one conversation, found by replaying its partition up to the end."""

    def __init__(self, settings: Settings, asked: _Asked, partition: int, span: Span, committed: int) -> None:
        self.at_commit: bytes | None = None
        """The state recomputed from what the group has consumed."""
        self._settings = settings
        self._id = asked.conversation_id
        self._key = asked.conversation_id.encode("utf-8", "surrogateescape")
        self._partition = partition
        self._span = span
        self._committed = committed
        self._replay = Replay(settings.rules())

    async def records(self, reader: KafkaReader) -> AsyncGenerator[Explanation, None]:
        """Each record and what it did."""
        span = self._span
        with progress(f"reading partition {self._partition}", span.end - span.begin) as advance:
            at = span.begin
            async with aclosing(reader.read(self._settings.input_topic, self._partition, span)) as slices:
                async for records in slices:
                    for record in records:
                        told = self._take(record)
                        if told is not None:
                            yield told
                    self._replay.settle()
                    if records:
                        advance(records[-1].next_offset - at)
                        at = records[-1].next_offset

    def _take(self, record: Record) -> Explanation | None:
        told = None
        if record.key == self._key or self._key in (record.value or b""):
            before, outcome = self._replay.take(record)
            mentioned = outcome.conversation_id == self._id or outcome.reason == "key_mismatch"
            if mentioned or record.key == self._key:
                told = explained(record, self._settings.rules(), before, outcome)
        else:
            self._replay.pass_over(record)
        if record.offset < self._committed:
            known = self._replay.store.lookup(self._id)
            self.at_commit = None if known is None else known.published
        return told


async def _show_records(
    settings: Settings,
    reader: KafkaReader,
    asked: _Asked,
    partition: int,
    span: Span,
    published: bytes | None,
    numbered: Numbers,
) -> None:
    """Tell what each record of the conversation did."""
    committed = await reader.offset_of_group(partition)
    upto = 0 if committed is None else committed.next_offset
    why = _Why(settings, asked, partition, span, upto)

    def tell(each: Explanation) -> None:
        if asked.as_json:
            _echo_json("record", consumed=each.offset < upto, **msgspec.to_builtins(each))
        else:
            _echo_lines(record_lines(each, numbered, consumed=each.offset < upto))

    count, held = 0, []
    async with aclosing(why.records(reader)) as found:
        async for each in found:
            count += 1
            if sys.stdout.isatty():  # where the progress bar is drawn as well
                held.append(each)
            else:
                tell(each)
    for each in held:
        tell(each)
    explains = _same(why.at_commit, published)
    if asked.as_json:
        _echo_json("end", records=count, inputBegin=span.begin, committed=upto, explainsState=explains)
    else:
        _echo_lines(end_lines(count, (span.begin, span.end), upto, explains=explains))
    if reader.compaction.verdict == "fail":
        click.echo(f"records of this conversation may be gone: {reader.compaction.told}", err=True)


def _same(recomputed: bytes | None, published: bytes | None) -> bool:
    if recomputed is None or published is None:
        return recomputed is published
    return without_source(recomputed) == without_source(published)


def _echo_json(kind: str, **told: Any) -> None:
    click.echo(json.dumps({"kind": kind, **told}, ensure_ascii=False))


def _echo_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))
