"""`rekey`: copy a topic whose keys are not the conversation ids into one whose keys are."""

import click
import msgspec

from consumer.adapters import logs
from consumer.adapters.kafka_rekey import Progress
from consumer.adapters.kafka_rekey import rekey as copied
from consumer.cli.exits import settings_or_exit
from consumer.cli.long_work import bar, ending_told, run_until_signal


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--follow", is_flag=True, help="Go on with what is written to SOURCE from now on, until a signal.")
@click.option("--json", "as_json", is_flag=True, help="End with a JSON object instead of a sentence.")
def rekey(*, source: str, target: str, follow: bool, as_json: bool) -> None:
    r"""Copy the records of topic SOURCE into topic TARGET, each under its conversation id.

    Values, headers, timestamps and the order of each source partition stay, and every record is in TARGET exactly
    once: interrupted or killed, the same command goes on where it was. A record without a readable conversation id
    is copied under the key it has. TARGET has to exist and, at the beginning, to be empty.

    \b
    conversation-consumer rekey raw-updates conversation-updates
    conversation-consumer rekey raw-updates conversation-updates --follow
    """
    if source == target:
        raise click.UsageError("SOURCE and TARGET must differ")
    settings = settings_or_exit()
    logs.mute_libraries()
    progress = Progress()

    def noted(now: Progress) -> None:
        nonlocal progress
        progress = now
        drawn(now.passed, now.total)

    try:
        with ending_told(), bar("copying") as drawn:
            run_until_signal(copied(settings, source, target, follow=follow, on_progress=noted))
    finally:
        if progress.total or progress.outcomes:
            click.echo(_json(progress) if as_json else "\n".join(told(progress)))


def told(progress: Progress) -> list[str]:
    """What this run has done, in words."""
    outcomes = progress.outcomes
    summary = (
        f"{'resumed, and ' if progress.is_resumed else ''}copied {outcomes.total()} records: {outcomes['rekeyed']} "
        f"under another key, {outcomes['kept']} under the same, {outcomes['copied']} as they are, for no conversation "
        f"id can be read"
    )
    lines = [summary]
    if progress.lost:
        lines.append(
            f"{progress.lost} offsets of the source were gone before they were read: its retention is too short"
        )
    return lines


def _json(progress: Progress) -> bytes:
    counts = {name: progress.outcomes[name] for name in ("rekeyed", "kept", "copied")}
    return msgspec.json.encode({**counts, "lostOffsets": progress.lost, "resumed": progress.is_resumed})
