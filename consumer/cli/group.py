"""What all commands share: the choice of colours, and how an interruption and a bug of ours end."""

import os
import sys
from typing import Any

import click

from consumer.cli.exit_codes import INTERRUPTED, OK, SOFTWARE
from consumer.cli.output import write_line
from consumer.telemetry import logs

HELP_OPTIONS = ["-h", "--help"]
_SENTENCE_MAX = 1_000
"""Characters; click cuts at the width of the terminal."""


class HelpfulGroup(click.Group):
    """A group whose help shows the whole first sentence of each command."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """See `Group.add_command`. A command keeps the help option of its first context, which may have no parent."""
        cmd.context_settings.setdefault("help_option_names", HELP_OPTIONS)
        super().add_command(cmd, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `Group.format_commands`."""
        names = self.list_commands(ctx)
        rows = [(name, self.commands[name].get_short_help_str(_SENTENCE_MAX)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class CommandGroup(HelpfulGroup):
    """The group of all commands. `help`, also before a command, and `version` do what the options do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `Command.parse_args`."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        elif args == ["version"]:
            args = ["--version"]
        return super().parse_args(ctx, args)

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
        except BrokenPipeError:  # who reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered is written at the end
            sys.exit(OK)
        except Exception as error:  # noqa: BLE001 - the place where every bug becomes a line
            write_line(f"a bug, please report it to the developers: {logs.place_of(error)}", err=True)
            sys.exit(SOFTWARE)
