"""`inspect`: the state of one conversation, what happened in it, and which record changed what."""

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

import click
import msgspec
from msgspec import Struct

from consumer.cli.exit_codes import NOT_FOUND, OK, exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import progress
from consumer.cli.render import end_lines, number_communications, record_lines, state_lines
from consumer.cli.tables import find_width, wrap
from consumer.cli.times import PublishedTime
from consumer.query.timeline_view import communications
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.tools.conclusion import Evidence, conclude
from consumer.tools.explain import Explanation
from consumer.tools.inspect import ConversationReplay, Inspection
from consumer.tools.topics_reader import TopicsReader
from consumer.worker.standstill import describe_undecided
from schemas.query import CommunicationView
from schemas.state import ConversationState


class _Request(Struct, frozen=True):
    """The arguments and options of the command."""

    conversation_id: str
    as_of: str | None
    why: bool
    brief: bool
    as_json: bool
    partition: int | None

    @property
    def concludes(self) -> bool:
        """Whether a conclusion is shown: it is about now, and in JSON only where it is asked for."""
        return self.as_of is None and (self.why or self.brief or not self.as_json)


@click.command()
@click.argument("conversation_id", metavar="ID")
@add_connection
@click.option("--why", is_flag=True, help="Also every record of it still in the input topic, and what each changed.")
@click.option("--brief", is_flag=True, help="The conclusion only: what keeps it live, or what ended it.")
@click.option("--as-of", metavar="TIME", type=PublishedTime(), help="What had happened by then, as known now.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON lines: the conversation, then a line per record, the end, and the conclusion.",
)
@click.option(
    "--partition",
    type=click.IntRange(0),
    help="Where to look, if the input is not keyed by Kafka's own partitioner (murmur2).",
)
def inspect(
    *, conversation_id: str, why: bool, brief: bool, as_of: str | None, as_json: bool, partition: int | None
) -> None:
    """Show a conversation's state and timeline, read from Kafka. Needs no worker and changes nothing.

    \b
    Examples:
      conversation-consumer inspect ID
      conversation-consumer inspect ID --as-of 2026-01-31T09:00:00Z
      conversation-consumer inspect ID --why
      conversation-consumer inspect ID --why --brief
      conversation-consumer inspect ID --why --json | jq 'select(.kind == "record") | .effects'

    Exit codes: 0 found; 2 wrong options; 66 no such conversation in the state topic; 69 Kafka does not answer;
    78 settings, permissions or topics are wrong; 130 interrupted.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    if brief and as_of is not None:
        raise click.UsageError("--brief is about now: leave --as-of out")
    settings = settings_or_exit()
    logs.mute()
    request = _Request(conversation_id, as_of, why, brief, as_json, partition)
    with exit_on_external_error():
        sys.exit(asyncio.run(_inspect(settings, request)))


async def _inspect(settings: Settings, request: _Request) -> int:
    async with TopicsReader(settings) as reader:
        inspection = Inspection(settings, reader, request.conversation_id, request.partition)
        state = await inspection.read_state()
        views = [] if state is None else communications(state, settings.rules().park_cycles_max, request.as_of)
        if state is None:
            _show_missing(settings, request, inspection.partition)
        elif not request.brief:
            _show_state(request, inspection.partition, state, views)
        undecided = await inspection.find_undecided()
        if undecided is not None:
            waiting = describe_undecided(settings, inspection.partition, undecided, _now_ms())
            write_line(f"there may be more of this conversation: {': '.join(waiting)}", err=True)
        evidence = None
        if request.why:
            evidence = await _show_records(request, await inspection.start_replay(undecided), views)
        if request.concludes and (state is not None or request.why):
            is_undecided = undecided is not None
            sentences = conclude(request.conversation_id, state, views, _now_ms(), evidence, is_undecided=is_undecided)
            _show_conclusion(request, sentences)
        if request.why and reader.compaction.status == "fail":
            write_line(f"records of this conversation may be gone: {reader.compaction.sentence}", err=True)
    return OK if state is not None else NOT_FOUND


def _show_missing(settings: Settings, request: _Request, partition: int) -> None:
    if request.as_json and not request.brief:
        _echo_json("conversation", conversationId=request.conversation_id, partition=partition, state=None)
    more = "" if request.why else "; --why shows its records that are still in the input topic"
    write_line(
        f"no conversation {request.conversation_id!r} in partition {partition} of {settings.state_topic!r}: not seen "
        f"yet, dead-lettered, evicted, or in another partition (see --partition){more}",
        err=True,
    )


def _show_state(
    request: _Request, partition: int, state: ConversationState, views: Sequence[CommunicationView]
) -> None:
    if request.as_json:
        _echo_json(
            "conversation",
            conversationId=request.conversation_id,
            partition=partition,
            asOf=request.as_of,
            communications=msgspec.to_builtins(views),
            state=msgspec.to_builtins(state),
        )
    else:
        _echo_lines(state_lines(state, partition, views, request.as_of, find_width()))


async def _show_records(request: _Request, replay: ConversationReplay, views: Sequence[CommunicationView]) -> Evidence:
    """Show what each record of the conversation changed; returns what they tell."""
    evidence, numbers = Evidence(), number_communications(views)

    def show(explanation: Explanation) -> None:
        is_consumed = explanation.offset < replay.committed_offset
        if request.as_json:
            _echo_json("record", consumed=is_consumed, **msgspec.to_builtins(explanation))
        else:
            _echo_lines(record_lines(explanation, numbers, is_consumed=is_consumed))

    held = []
    async with aclosing(replay.explanations(progress)) as explanations:
        async for explanation in explanations:
            evidence.add(explanation, is_consumed=explanation.offset < replay.committed_offset)
            if request.brief:
                continue
            if sys.stdout.isatty():  # the progress bar is on the same terminal: wait until it is gone
                held.append(explanation)
            else:
                show(explanation)
    for explanation in held:
        show(explanation)
    if request.brief:
        return evidence
    begin, end, committed = replay.span.begin, replay.span.end, replay.committed_offset
    explains = replay.explains_state
    if request.as_json:
        _echo_json("end", records=evidence.records, inputBegin=begin, committed=committed, explainsState=explains)
    else:
        _echo_lines(end_lines(evidence.records, (begin, end), committed, explains=explains))
    return evidence


def _show_conclusion(request: _Request, sentences: Sequence[str]) -> None:
    if request.as_json:
        _echo_json("conclusion", conversationId=request.conversation_id, sentences=sentences)
    elif request.brief:
        _echo_lines(sentences)
    else:
        _echo_lines(["", "conclusion", *(f"    {sentence}" for sentence in sentences)])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _echo_json(kind: str, **fields: Any) -> None:
    write_json(json.dumps({"kind": kind, **fields}, ensure_ascii=False))


def _echo_lines(lines: Iterable[str]) -> None:
    for line in wrap(lines, find_width()):
        write_line(line)
