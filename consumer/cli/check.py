"""`check`: would `run` start here? A line per check."""

import asyncio

import click

from consumer.adapters import logs
from consumer.adapters.kafka_topics import TopicAdmin, TopicFound, misfits, warnings
from consumer.cli.exits import CONFIG, exit_code, settings_or_exit
from consumer.runtime.ports import WorldError
from consumer.runtime.settings import Settings


@click.command()
def check() -> None:
    """Check the settings, the connection to Kafka and the topics, and change nothing.

    \b
    Examples:
      conversation-consumer check
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = settings_or_exit()
    logs.mute_libraries()
    click.echo("ok       settings")
    try:
        found = asyncio.run(_find(settings))
    except WorldError as error:
        for line in str(error).splitlines():
            click.echo(f"failed   {line}")
        raise SystemExit(exit_code(error)) from error
    problems = misfits(settings, found)
    for problem in problems:
        click.echo(f"failed   {problem}")
    if not problems:
        click.echo(f"ok       topics: {found[settings.input_topic].partitions} input partitions, all four fit")
    for warning in warnings(settings, found):
        click.echo(f"warning  {warning}")
    if problems:
        raise SystemExit(CONFIG)


async def _find(settings: Settings) -> dict[str, TopicFound]:
    async with TopicAdmin(settings) as admin:
        click.echo(f"ok       broker {settings.bootstrap_servers}")
        await admin.authorize()
        click.echo("ok       permissions")
        return await admin.find()
