"""`rekey`: copy a topic whose keys are not the conversation ids into one whose keys are."""

import click
import msgspec

from consumer.adapters import logs
from consumer.adapters.kafka.rekey import Progress
from consumer.adapters.kafka.rekey import rekey as copied
from consumer.cli.exits import exit_on_world_error, settings_or_exit
from consumer.cli.long_work import run_until_terminated
from consumer.cli.progress import progress, warn
from consumer.runtime.republish import REKEY_OUTCOMES


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--follow", is_flag=True, help="Go on with what is written to SOURCE from now on, until a signal.")
@click.option("--json", "as_json", is_flag=True, help="End with a JSON object instead of a sentence.")
def rekey(*, source: str, target: str, follow: bool, as_json: bool) -> None:
    """Copy the records of topic SOURCE into topic TARGET, each under its conversation id.

    Values, headers, timestamps and the order of each source partition stay, and every record is in TARGET exactly
    once: interrupted or killed, the same command goes on where it was. A record without a readable conversation id
    is copied under the key it has. TARGET has to exist and, at the beginning, to be empty.

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
    logs.mute_libraries()
    done = Progress()
    try:
        with exit_on_world_error(), progress("copying", None) as advance:

            def note(now: Progress) -> None:
                nonlocal done
                advance(now.outcomes.total() - done.outcomes.total())
                done = now

            run_until_terminated(copied(settings, source, target, follow=follow, on_progress=note, on_repair=warn))
    finally:
        if done.has_begun:
            click.echo(_json(done) if as_json else "\n".join(told(done)))


def told(done: Progress) -> list[str]:
    """What this run has done, in words."""
    outcomes = done.outcomes
    summary = (
        f"{'resumed, and ' if done.is_resumed else ''}copied {outcomes.total()} records: {outcomes['rekeyed']} under "
        f"another key, {outcomes['kept']} under the same, {outcomes['copied']} as they are, for no conversation id can "
        f"be read"
    )
    lines = [summary]
    if done.lost:
        lines.append(f"{done.lost} offsets of the source were gone before they were read: its retention is too short")
    return lines


def _json(done: Progress) -> bytes:
    counts = {name: done.outcomes[name] for name in REKEY_OUTCOMES}
    return msgspec.json.encode({**counts, "lostOffsets": done.lost, "resumed": done.is_resumed})
