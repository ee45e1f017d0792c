"""Exit codes, as in sysexits.h, and the border where errors of the world become one of them.

The docstring of a code is its row in the documentation: the meaning, then what to do.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from consumer import secret_files
from consumer.cli.options import environ
from consumer.cli.output import write_line
from consumer.environment import SettingsError, parse
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError

OK = 0
"""Stopped as asked, done, or nothing wrong was found."""
FAILED = 1
"""A file cannot be read or written, or the demo came out wrong. The message says which."""
USAGE = 2
"""The command line is wrong. `--help` has examples."""  # click's own
DIFFERENCES = 65
"""`verify` found differences. They are on standard output."""
NOT_FOUND = 66
"""What was asked for does not exist. The message says where else it may be."""
UNAVAILABLE = 69
"""Kafka does not answer, or a certificate or token has expired. Start again later; the message names the setting."""
SOFTWARE = 70
"""A bug. The message names the error's type and place; report both."""
CONFIG = 78
"""Settings, permissions or topics are wrong. The message names the setting and the remedy; a restart does not help."""
INTERRUPTED = 130
"""Interrupted with Ctrl-C. `dead-letters redrive`, `export` and `rekey` continue when run again."""
TERMINATED = 143
"""Ended by SIGTERM or SIGHUP too early. `dead-letters redrive`, `export` and `rekey` continue when run again."""


def settings_or_exit(**overrides: str) -> Settings:
    """The settings, or one line per problem on standard error and the exit code for them."""
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        for problem in error.problems:
            write_line(problem, err=True)
        sys.exit(CONFIG)


def load_settings(**overrides: str) -> Settings:
    """Settings from the environment and the command's options; `overrides` take precedence. Raises SettingsError."""
    return parse({**environ(), **overrides}, lambda path: secret_files.read(path).decode())


@contextmanager
def exit_on_external_error() -> Iterator[None]:
    """Print the message of an external error on standard error, and exit with its code."""
    try:
        yield
    except ExternalError as error:
        for line in str(error).split("\n"):
            write_line(line, err=True)
        sys.exit(exit_code(error))


def exit_code(error: ExternalError) -> int:
    """The exit code, which shows whether starting again may help."""
    match error:
        case ConfigurationError():
            return CONFIG
        case RetriableError():
            return UNAVAILABLE
        case _:
            return SOFTWARE
