"""`dead-letters`: list and show the records that could not be used, and redrive them once the cause is fixed."""

import base64
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import click
import msgspec

from consumer.cli.exit_codes import exit_on_external_error, settings_or_exit
from consumer.cli.group import HelpfulGroup
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import progress, warn
from consumer.cli.signals import run_until_terminated
from consumer.cli.tables import align
from consumer.cli.times import Time
from consumer.core import timestamps
from consumer.core.reasons import DEAD_LETTER_REASONS, Reason
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.tools.dead_letter_queue import RATE_MAX, Counts, DeadLetterQueue, RedriveRequest, count_redriven
from consumer.tools.dead_letter_summary import NewestByReason, ReasonSummary
from consumer.tools.redrive import DECISIONS, DeadLetterStatus, Decision, Selection

_PARTITIONS_SHOWN = 8
_option = partial(click.option, show_default=True)


@click.group("dead-letters", cls=HelpfulGroup)
def dead_letters() -> None:
    """List and show the records that could not be used, and put them back into the input."""


def _add_selection(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select dead letters."""
    for option in (
        click.option("--until", type=Time(), help="Those before this time, such as 1h, or 'today 14:00'."),
        click.option("--since", type=Time(), help="Those that became dead letters at this time or later."),
        click.option("--partition", type=click.IntRange(0), multiple=True, help="Input partition; may be repeated."),
        click.option(
            "--key", multiple=True, help="Key of the original record, or the id that it spells; may be repeated."
        ),
        click.option("--reason", type=click.Choice(DEAD_LETTER_REASONS), multiple=True, help="May be repeated."),
    ):
        command = option(command)
    return command


def _parse_selection(options: dict[str, Any]) -> Selection:
    return Selection(
        reasons=frozenset(options["reason"]),
        keys=frozenset(key.encode("utf-8", "surrogateescape") for key in options["key"]),
        partitions=frozenset(options["partition"]),
        since_ms=options["since"],
        until_ms=options["until"],
    )


@dead_letters.command("list")
@add_connection
@_add_selection
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per reason.")
def list_(*, as_json: bool, **options: Any) -> None:
    """Count the dead letters by reason: when, where from, and how many were redriven already.

    \b
    Examples:
      conversation-consumer dead-letters list
      conversation-consumer dead-letters list --since 1h
      conversation-consumer dead-letters list --since '2026-01-31 09:00 Europe/Berlin' --json

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _load_settings()
    summaries: dict[str, ReasonSummary] = {}

    def add(status: DeadLetterStatus) -> None:
        reason = status.letter.reason
        summaries.setdefault(reason, ReasonSummary(reason)).add(status)

    _read(settings, _parse_selection(options), add)
    sorted_summaries = sorted(summaries.values(), key=lambda summary: -summary.letters)
    if as_json:
        for summary in sorted_summaries:
            write_json(msgspec.json.encode(summary.document()))
        return
    if not sorted_summaries:
        write_line("no dead letters")
        return
    headings = ("reason", "letters", "redriven", "without payload", "first", "last", "input partitions")
    for line in align([headings, *map(_row, sorted_summaries)]):
        write_line(line)


def _row(summary: ReasonSummary) -> tuple[str, ...]:
    partitions = sorted(summary.input_partitions)
    shown = ", ".join(map(str, partitions[:_PARTITIONS_SHOWN]))
    more = f" and {len(partitions) - _PARTITIONS_SHOWN} more" if len(partitions) > _PARTITIONS_SHOWN else ""
    counts = map(str, (summary.letters, summary.redriven, summary.without_payload))
    times = map(timestamps.to_text, (summary.first_ms, summary.last_ms))
    return (summary.reason, *counts, *times, shown + more)


@dead_letters.command()
@add_connection
@_add_selection
@_option("--limit", type=click.IntRange(1, 10_000), default=10, help="The newest of each reason.")
@click.option("--raw", is_flag=True, help="Show keys and values too. They are customers' personal data.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per dead letter.")
def show(*, limit: int, raw: bool, as_json: bool, **options: Any) -> None:
    """Show the newest dead letters: why, at which field, where they come from and how large they are.

    \b
    Examples:
      conversation-consumer dead-letters show --reason wrong_type --limit 3
      conversation-consumer dead-letters show --key ID --raw

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _load_settings()
    newest: NewestByReason[dict[str, Any]] = NewestByReason(limit)
    # Documents, not dead letters: without --raw they hold no payload, so many of them fit in memory.
    _read(settings, _parse_selection(options), lambda status: newest.add(status, _document(status, raw=raw)))
    documents = newest.items()
    for document in documents:
        if as_json:
            write_json(msgspec.json.encode(document))
        else:
            for name, value in document.items():
                write_line(f"{name:14}{_text(value)}")
            write_line()
    if not documents and not as_json:
        write_line("no dead letters")


def _document(status: DeadLetterStatus, *, raw: bool) -> dict[str, Any]:
    """A dead letter for the output; it holds personal data only if `raw`."""
    letter = status.letter
    original = letter.original
    document: dict[str, Any] = {
        "time": timestamps.to_text(letter.time_ms),
        "reason": letter.reason,
        "where": letter.detail,
        "place": f"{letter.partition}/{letter.offset}",
        "source": f"{original.topic}/{original.partition}/{original.offset}",
        "sourceTime": timestamps.normalize(original.timestamp_ms),
        "version": letter.version,
        "redrives": letter.redrives,
        "redriven": status.is_redriven,
    }
    if letter.left_out:
        return document | {"payload": letter.left_out}
    if raw:
        return document | _encode("key", original.key) | _encode("value", original.value)
    return document | {"keyBytes": _size(original.key), "valueBytes": _size(original.value)}


def _encode(name: str, content: bytes | None) -> dict[str, str | None]:
    """A member with the content as text, or with base64 and another name if it is not UTF-8."""
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(content or b"").decode()}


def _size(content: bytes | None) -> int | None:
    return None if content is None else len(content)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


@dead_letters.command()
@add_connection
@_add_selection
@click.option("--yes", "--execute", "execute", is_flag=True, help="Write. Without it, only say what would be written.")
@_option("--rate", type=click.FloatRange(0.1, RATE_MAX), default=500.0, help="Records per second at most.")
@click.option("--limit", type=click.IntRange(1), help="Records in all at most.")
@_option("--attempts-max", type=click.IntRange(1, 1_000), default=3, help="Leave those that were redriven so often.")
@click.option("--again", is_flag=True, help="Also those that would fail again, or that came back before.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per reason and decision.")
def redrive(
    *, execute: bool, rate: float, limit: int | None, attempts_max: int, again: bool, as_json: bool, **options: Any
) -> None:
    """Put dead letters back into the input: the same key, bytes, timestamp and partition. Never the same one twice.

    Fix the cause first: each is processed once more, by the limits in this environment, and stays if it would become a
    dead letter again. Without --yes nothing is written. You may interrupt the command and start it again; what a filter
    leaves out can be redriven another time.

    \b
    Examples:
      conversation-consumer dead-letters redrive --reason too_large
      conversation-consumer dead-letters redrive --reason too_large --rate 200 --yes

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _load_settings()
    request = RedriveRequest(
        selection=_parse_selection(options),
        attempts_max=attempts_max,
        rate=rate,
        letters_max=limit,
        again=again,
        execute=execute,
    )
    with exit_on_external_error():
        counts = run_until_terminated(_redrive(settings, request))
    if as_json:
        for (reason, decision, fault), count in sorted(counts.items()):
            document = {"reason": reason, "decision": decision, "count": count, "executed": execute}
            if fault:
                document["failsWith"] = fault
            write_json(msgspec.json.encode(document))
    else:
        for line in describe(counts, executed=execute):
            write_line(line)


def describe(counts: Counts, *, executed: bool) -> list[str]:
    """A line per reason and decision, then the sum."""
    total = count_redriven(counts)
    rows = [
        (reason, str(count), _describe_decision(decision, fault, executed=executed))
        for (reason, decision, fault), count in sorted(counts.items())
    ]
    lines = align([("reason", "letters", "what becomes of them"), *rows]) if rows else []
    return [*lines, f"redrove {total}" if executed else f"dry run, nothing was written: --yes would redrive {total}"]


def _describe_decision(decision: Decision, fault: Reason, *, executed: bool) -> str:
    if decision == "redrive" and executed:
        return "went back into the input"
    if fault == "key_mismatch":
        return (
            "would become a dead letter again (key_mismatch): fix the producer of the topic, or copy it with "
            "`conversation-consumer rekey SOURCE TARGET`"
        )
    return DECISIONS[decision].replace("again:", f"again ({fault}):") if fault else DECISIONS[decision]


def _load_settings() -> Settings:
    settings = settings_or_exit()
    logs.mute()
    return settings


def _read(settings: Settings, selection: Selection, on_status: Callable[[DeadLetterStatus], None]) -> None:
    """Read the selected dead letters, with a progress bar."""

    async def read() -> None:
        async with DeadLetterQueue(settings) as queue:
            with progress("reading", queue.total) as advance:
                async with aclosing(queue.read(selection, advance)) as statuses:
                    async for status in statuses:
                        on_status(status)

    with exit_on_external_error():
        run_until_terminated(read())


async def _redrive(settings: Settings, request: RedriveRequest) -> Counts:
    async with DeadLetterQueue(settings, to_write=request.execute) as queue:
        with progress("redriving" if request.execute else "reading", queue.total) as advance:
            return await queue.redrive(request, advance, warn)
