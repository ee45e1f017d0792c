"""`topics`: verify the four topics, or create those that are missing."""

import asyncio
from typing import Any

import click
import msgspec

from consumer.cli.exit_codes import CONFIG, exit_on_external_error, settings_or_exit
from consumer.cli.options import add_connection
from consumer.cli.output import write_json, write_line
from consumer.cli.tables import align
from consumer.preflight.check_result import sentences
from consumer.preflight.topic_admin import TopicAdmin
from consumer.preflight.topic_checks import TopicFound, checks, plans
from consumer.settings import Settings
from consumer.telemetry import logs

_CONFIGS = ("cleanup.policy", "max.message.bytes", "min.insync.replicas")


@click.command()
@add_connection
@click.option("--create", is_flag=True, help="Create the topics that do not exist.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    default=4,
    show_default=True,
    help="Partitions of new topics; an input topic that exists decides instead.",
)
@click.option(
    "--replication-factor", type=click.IntRange(1, 10), default=1, show_default=True, help="Replicas of new topics."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one per topic.")
def topics(*, create: bool, partitions: int, replication_factor: int, as_json: bool) -> None:
    """Verify that the topics fit the settings, and give the remedy if they do not.

    \b
    Examples:
      conversation-consumer topics
      conversation-consumer topics --json
      conversation-consumer topics --create --partitions 16 --replication-factor 3

    Exit codes: 0 all four fit; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.mute()
    with exit_on_external_error():
        created, found = asyncio.run(
            _create_and_find(settings, partitions, replication_factor) if create else _find(settings)
        )
    if as_json:
        for document in documents(settings, found, created):
            write_json(msgspec.json.encode(document))
    else:
        for line in table(settings, found, created):
            write_line(line)
    results = checks(settings, found)
    problems = sentences(results, "fail")
    for problem in problems:
        write_line(problem, err=True)
    for warning in sentences(results, "warn"):
        write_line(f"warning: {warning}", err=True)
    if problems:
        raise SystemExit(CONFIG)


def table(settings: Settings, found: dict[str, TopicFound], created: list[str]) -> list[str]:
    """A heading and a line per topic; a value that the broker does not report is `-`."""
    rows: list[tuple[str, ...]] = [("topic", "status", "partitions", "replicas", *_CONFIGS)]
    for document in documents(settings, found, created):
        counts = (str(document[name] or "") for name in ("partitions", "replicas"))
        rows.append((document["topic"], document["status"], *counts, *(document["configs"][name] for name in _CONFIGS)))
    return align(rows)


def documents(settings: Settings, found: dict[str, TopicFound], created: list[str]) -> list[dict[str, Any]]:
    """A JSON object per topic: its status is `missing`, `created` or `exists`."""
    missing = TopicFound(0, 0, {})
    return [
        {
            "topic": plan.name,
            "status": "missing" if plan.name not in found else "created" if plan.name in created else "exists",
            "partitions": topic.partitions,
            "replicas": topic.replicas,
            "configs": {name: topic.configs.get(name, "") for name in _CONFIGS},
        }
        for plan in plans(settings)
        for topic in [found.get(plan.name, missing)]
    ]


async def _find(settings: Settings) -> tuple[list[str], dict[str, TopicFound]]:
    async with TopicAdmin(settings) as admin:
        return [], await admin.find()


async def _create_and_find(
    settings: Settings, partitions: int, replication_factor: int
) -> tuple[list[str], dict[str, TopicFound]]:
    async with TopicAdmin(settings) as admin:
        created = await admin.create(partitions, replication_factor)
        return created, await admin.find()
