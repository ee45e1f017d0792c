"""`topics`: verify the four topics, or create those that are missing."""

import asyncio

import click

from consumer.adapters.kafka_topics import TopicAdmin, misfits, plans, warnings
from consumer.cli.exits import CONFIG, exit_on_world_error, settings_or_exit
from consumer.runtime.settings import Settings


@click.command()
@click.option("--create", is_flag=True, help="Create the topics that do not exist.")
@click.option("--partitions", type=click.IntRange(1, 10_000), default=4, show_default=True, help="Partitions of new topics, if the input topic is new too.")  # noqa: E501
@click.option("--replication-factor", type=click.IntRange(1, 10), default=1, show_default=True, help="Replicas of new topics.")  # noqa: E501
def topics(*, create: bool, partitions: int, replication_factor: int) -> None:
    """Verify that the topics fit the settings, and say what to do where they do not."""
    settings = settings_or_exit()
    with exit_on_world_error():
        problems = asyncio.run(_topics(settings, partitions if create else 0, replication_factor))
    if problems:
        raise SystemExit(CONFIG)


async def _topics(settings: Settings, partitions: int, replication_factor: int) -> list[str]:
    async with TopicAdmin(settings) as admin:
        created = await admin.create(partitions, replication_factor) if partitions else []
        found = await admin.find()
    for plan in plans(settings):
        topic = found.get(plan.name)
        if topic is not None:
            told = " ".join(f"{name}={value}" for name, value in sorted(topic.configs.items()))
            state = "created" if plan.name in created else "exists"
            click.echo(f"{plan.name}: {state}, {topic.partitions} partitions, {told}")
    problems = misfits(settings, found)
    for problem in problems:
        click.echo(problem, err=True)
    for warning in warnings(settings, found):
        click.echo(f"warning: {warning}", err=True)
    return problems
