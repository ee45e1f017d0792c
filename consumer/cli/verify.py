"""`verify`: recompute from the input what should be published, and list what differs with both sides."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from consumer.cli.exit_codes import DIFFERENCES, OK, exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import progress
from consumer.cli.tables import align
from consumer.core import timestamps
from consumer.telemetry import logs
from consumer.tools.verification import EXCLUSIONS, Comparison
from consumer.tools.verify import ListedDifference, PartitionReport, Report, verify_topics
from consumer.worker.standstill import describe_undecided

_VALUE_LENGTH_MAX = 160


@click.command()
@add_connection
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Conversations shown.")
@click.option("--partition", "only", type=click.IntRange(0), multiple=True, help="Only this one; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per difference, then a summary.")
def verify(*, limit: int, only: tuple[int, ...], as_json: bool) -> None:
    """Recompute state and standing transitions from the input and compare them with what is published.

    It reads only, joins no group, and may run beside the workers: it compares what the group has committed. It needs
    the memory of one lane: it reads one partition after the other, and holds the recomputed states as bytes and a
    digest of everything published. Run it with the settings of the workers: other rules give other states.

    Conversations that may differ by design are excluded and counted by the reason. `source` and the context of
    transitions depend on arrival and are not compared. If retention has deleted the beginning of the input, only
    conversations first seen after that can be verified; the others are excluded unless they are equal. A compacted
    input is refused: the records it lacks cannot be recomputed.

    \b
    Examples:
      conversation-consumer verify
      conversation-consumer verify --partition 3 --limit 100
      conversation-consumer verify --json | jq 'select(.kind == "difference")'

    Exit codes: 0 equal; 2 wrong options; 65 differences; 69 Kafka does not answer; 78 settings, permissions or topics
    are wrong; 130 interrupted.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.mute()

    def show(difference: ListedDifference) -> None:
        if as_json:
            write_json(_to_json(msgspec.to_builtins(difference)))
            return
        for line in _difference_lines(difference):
            write_line(line)

    with exit_on_external_error():
        report = asyncio.run(verify_topics(settings, only, limit, progress, show))
    for partition, end in report.undecided.items():
        sentences = describe_undecided(settings, partition, end, time.time_ns() // 1_000_000)
        write_line(f"not compared, since no worker may read it yet: {': '.join(sentences)}", err=True)
    if as_json:
        write_json(_to_json(_summary(report)))
    else:
        for line in _summary_lines(report):
            write_line(line)
    sys.exit(DIFFERENCES if report.total.different else OK)


def _difference_lines(difference: ListedDifference) -> Iterator[str]:
    yield (
        f"partition {difference.partition} conversation {difference.conversation_id} {difference.what} "
        f"{difference.path}"
    )
    for side, value in (("published", difference.published), ("recomputed", difference.recomputed)):
        text = "nothing" if value is None else _to_json(value)
        cut = text if len(text) <= _VALUE_LENGTH_MAX else f"{text[:_VALUE_LENGTH_MAX]}..."
        yield (f"    {side:10}  {cut}")
    if difference.more:
        yield f"    and {difference.more} more of this conversation"


def _summary_lines(report: Report) -> Iterator[str]:
    total = report.total
    headings = ("partition", "offsets", "conversations", "equal", "different", "excluded", "transitions", "wrong")
    yield from align([headings, *map(_row, report.partitions)])
    for reason, meaning in EXCLUSIONS.items():
        if total.excluded[reason]:
            yield f"excluded: {total.excluded[reason]} {meaning}"
    for result in report.partitions:
        if result.input.begin:
            yield (
                f"partition {result.partition} of the input no longer holds what was before offset "
                f"{result.input.begin}: only conversations first seen after {_time(result.first_ms) or 'that'} can be "
                f"verified"
            )
    if total.different > report.listed:
        yield f"{total.different - report.listed} more conversations differ: see --limit"
    yield (
        f"{'DIFFERENT' if total.different else 'equal'}: {total.records} records recomputed, {total.equal} of "
        f"{total.conversations} conversations equal, {total.different} different, {total.excluded.total()} excluded"
    )


def _row(result: PartitionReport) -> list[str]:
    counts = result.comparison
    cells = (
        result.partition,
        f"{result.input.begin}-{result.input.end}",
        counts.conversations,
        counts.equal,
        counts.different,
        counts.excluded.total(),
        counts.transitions,
        counts.different_transitions,
    )
    return list(map(str, cells))


def _summary(report: Report) -> dict[str, Any]:
    return {
        "kind": "summary",
        "verdict": "different" if report.total.different else "equal",
        **_counts(report.total),
        "shown": report.listed,
        "partitions": [
            {
                "partition": result.partition,
                "from": result.input.begin,
                "to": result.input.end,
                **_counts(result.comparison),
            }
            for result in report.partitions
        ],
        "inputDeleted": [
            {"partition": result.partition, "before": result.input.begin, "firstTime": _time(result.first_ms)}
            for result in report.partitions
            if result.input.begin
        ],
    }


def _counts(comparison: Comparison) -> dict[str, Any]:
    return {
        "records": comparison.records,
        "conversations": comparison.conversations,
        "equal": comparison.equal,
        "different": comparison.different,
        "excluded": dict(comparison.excluded),
        "transitions": comparison.transitions,
        "differentTransitions": comparison.different_transitions,
    }


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else timestamps.normalize(time_ms)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
