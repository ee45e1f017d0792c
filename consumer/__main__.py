"""The command line.

For the first process of a container (PID 1), SIGTERM and SIGHUP have no default action: until a handler is set, the
kernel drops them, and the container runtime waits for its full grace period. So the handlers come before all imports
that take time.
"""

import os
import signal
from types import FrameType


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(128 + signal.SIGTERM)  # the exit code that a shell reports for a signal


signal.signal(signal.SIGTERM, _end_at_once)
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under `nohup`
    signal.signal(signal.SIGHUP, _end_at_once)

# isort: split
import click

from consumer.cli.check import check
from consumer.cli.dead_letters import dead_letters
from consumer.cli.demo import demo
from consumer.cli.export import export
from consumer.cli.generate import generate
from consumer.cli.group import HELP_OPTIONS, CommandGroup
from consumer.cli.inspect import inspect
from consumer.cli.rekey import rekey
from consumer.cli.run import run
from consumer.cli.topics import topics
from consumer.cli.verify import verify
from consumer.version import VERSION


@click.group(cls=CommandGroup, context_settings={"help_option_names": HELP_OPTIONS})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def main() -> None:
    """Genesys Cloud conversation updates in, clean state and ordered transitions out, exactly once.

    Settings are environment variables (CC_...); docs/reference lists them, the metrics and the exit codes.

    \b
    Examples:
      conversation-consumer check
      conversation-consumer run
      conversation-consumer COMMAND --help
    """  # noqa: D301 - click's own mark for lines to be left as they are


for subcommand in (run, demo, check, topics, generate, inspect, verify, export, dead_letters, rekey):
    main.add_command(subcommand)

if __name__ == "__main__":
    main(prog_name="conversation-consumer")
