"""The command line."""

import click

from consumer.cli.check import check
from consumer.cli.dead_letters import dead_letters
from consumer.cli.demo import demo
from consumer.cli.generate import generate
from consumer.cli.rekey import rekey
from consumer.cli.run import run
from consumer.cli.topics import topics


@click.group()
def main() -> None:
    """Genesys Cloud conversation updates in, clean state and ordered transitions out, exactly once."""


for command in (run, demo, check, topics, generate, dead_letters, rekey):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="conversation-consumer")
