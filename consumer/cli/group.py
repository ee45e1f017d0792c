"""What all commands share: the choice of colours, and how an interruption and a bug of ours end."""

import errno
import os
import sys
from typing import Any

import click

from consumer.cli.exit_codes import INTERRUPTED, SOFTWARE
from consumer.cli.output import write_line
from consumer.telemetry import logs


class CommandGroup(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; an exception that it does not handle becomes one line and an exit code."""
        if os.environ.get("NO_COLOR"):  # https://no-color.org; click writes no colours to a pipe anyway
            ctx.color = False
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            write_line("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of the pipe has closed it; click ends quietly
            write_line(f"a bug, please report it to the developers: {logs.place_of(error)}", err=True)
            sys.exit(SOFTWARE)
