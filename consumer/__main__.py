"""The command line."""

import click

from consumer.cli.check import check
from consumer.cli.demo import demo
from consumer.cli.generate import generate
from consumer.cli.inspect import inspect
from consumer.cli.run import run
from consumer.cli.topics import topics
from consumer.cli.verify import verify


@click.group()
def main() -> None:
    """Genesys Cloud conversation updates in, clean state and ordered transitions out, exactly once."""


for command in (run, demo, check, topics, generate, inspect, verify):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="conversation-consumer")
