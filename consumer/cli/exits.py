"""Exit codes, as in sysexits.h, and the border where errors of the world become one of them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings, SettingsError, parse

OK = 0
FAILED = 1
"""A file cannot be used, or what was shown is not as it should be."""
USAGE = 2
"""The command line is wrong; click's own."""
DIFFERENCES = 65
"""What was compared is not equal; the differences are on stdout."""
NOT_FOUND = 66
"""What was asked for is not there."""
UNAVAILABLE = 69
"""The broker does not answer, or a certificate or token has expired; starting again later may help."""
SOFTWARE = 70
"""A bug of ours."""
CONFIG = 78
"""Settings, permissions or topics are wrong; starting again will not help."""
INTERRUPTED = 130
"""What a shell shows for a process that SIGINT ended."""
TERMINATED = 143
"""What a shell shows for a process that SIGTERM ended; SIGHUP asks for the same."""


def settings_or_exit(**overrides: str) -> Settings:
    """Settings from the environment, a few of them given on the command line; exits with every problem named."""
    try:
        return settings_of_environment(**overrides)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(CONFIG)


def settings_of_environment(**overrides: str) -> Settings:
    """Settings from the environment, some of them given otherwise. Raises SettingsError."""
    return parse({**os.environ, **overrides}, lambda path: Path(path).read_text(encoding="utf-8"))


@contextmanager
def exit_on_world_error() -> Iterator[None]:
    """Turn what the world does wrong into a message on stderr and an exit code."""
    try:
        yield
    except WorldError as error:
        click.echo(error, err=True)
        sys.exit(exit_code(error))


def exit_code(error: WorldError) -> int:
    """The exit code that tells whether starting again may help."""
    match error:
        case Misfit():
            return CONFIG
        case Unreachable():
            return UNAVAILABLE
        case _:
            return SOFTWARE
