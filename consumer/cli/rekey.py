"""`rekey`: copy a topic whose keys are not the conversation ids into one whose keys are."""

import click
import msgspec

from consumer.cli.exit_codes import exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import progress, warn
from consumer.cli.signals import run_until_terminated
from consumer.telemetry import logs
from consumer.tools.rekey import Progress, copy_topic
from consumer.tools.republish import REKEY_OUTCOMES


@click.command()
@click.argument("source")
@click.argument("target")
@add_connection
@click.option("--follow", is_flag=True, help="Go on with what is written to SOURCE from now on, until a signal.")
@click.option("--json", "as_json", is_flag=True, help="End with a JSON object instead of a sentence.")
def rekey(*, source: str, target: str, follow: bool, as_json: bool) -> None:
    """Copy the records of topic SOURCE into topic TARGET, each under its conversation id.

    Values, headers, timestamps and the order of each source partition stay, and every record is in TARGET exactly
    once: interrupted or killed, the same command continues where it was. A record without a readable conversation id
    keeps its key, and one that holds several events becomes one for each of them. TARGET has to exist and, before the
    first run, to be empty.

    \b
    Examples:
      conversation-consumer rekey raw-updates conversation-updates
      conversation-consumer rekey raw-updates conversation-updates --follow

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    if source == target:
        raise click.UsageError("SOURCE and TARGET must differ")
    settings = settings_or_exit()
    logs.mute()
    latest = Progress()
    try:
        with exit_on_external_error(), progress("copying", None) as advance:

            def note(done: Progress) -> None:
                nonlocal latest
                advance(done.outcomes.total() - latest.outcomes.total())
                latest = done

            run_until_terminated(copy_topic(settings, source, target, follow=follow, on_progress=note, on_repair=warn))
    finally:
        if latest.has_begun:
            if as_json:
                write_json(_to_json(latest))
            else:
                for line in describe(latest):
                    write_line(line)


def describe(done: Progress) -> list[str]:
    """What this run has done, in words."""
    outcomes = done.outcomes
    summary = (
        f"{'resumed, and ' if done.is_resumed else ''}copied {outcomes.total()} records: {outcomes['rekeyed']} with a "
        f"new key, {outcomes['kept']} with the same key, {outcomes['copied']} unchanged (no readable conversation id)"
    )
    lines = [summary]
    if done.lost:
        lines.append(f"retention deleted {done.lost} offsets of the source before they were read: it is too short")
    return lines


def _to_json(done: Progress) -> bytes:
    counts = {name: done.outcomes[name] for name in REKEY_OUTCOMES}
    return msgspec.json.encode({**counts, "lostOffsets": done.lost, "resumed": done.is_resumed})
