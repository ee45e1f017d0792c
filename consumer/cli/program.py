"""What all commands have in common: how colours are chosen, and how an interruption and a bug of ours end."""

import errno
import os
import sys
from typing import Any

import click

from consumer.adapters import logs
from consumer.cli.exits import INTERRUPTED, SOFTWARE


class Program(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; what it does not handle itself ends in one line and an exit code."""
        if os.environ.get("NO_COLOR"):  # https://no-color.org; what is piped has no colours anyway
            ctx.color = False
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read the pipe has enough; click ends quietly
            click.echo(f"a bug, please tell the developers: {logs.place_of(error)}", err=True)
            sys.exit(SOFTWARE)
