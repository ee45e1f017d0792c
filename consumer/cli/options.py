"""The options of every command that connects: which brokers, which group, and a file with more settings."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from consumer import secret_files

_OPTIONS: Final = "conversation-consumer.settings"
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_QUOTES: Final = ("'", '"')

C = TypeVar("C", bound=Callable[..., Any])


def add_connection(command: C) -> C:
    """Add the options; `environ` has what they say."""
    for option in (
        click.option(
            "--env-file",
            metavar="FILE",
            help="Settings for those that the environment lacks, NAME=value per line.",
            callback=_read_file,
            expose_value=False,
        ),
        click.option(
            "--group", metavar="ID", help="Consumer group; CC_GROUP_ID if not given.", callback=_keep("CC_GROUP_ID"),
            expose_value=False,
        ),
        click.option(
            "--bootstrap-servers", metavar="HOST:PORT,...", help="Brokers; CC_BOOTSTRAP_SERVERS if not given.",
            callback=_keep("CC_BOOTSTRAP_SERVERS"), expose_value=False,
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def environ() -> Mapping[str, str]:
    """The environment, with what the options of the command say. An option goes before it, and it before the file."""
    context = click.get_current_context(silent=True)
    file, options = ({}, {}) if context is None else context.meta.get(_OPTIONS, ({}, {}))
    return {**file, **os.environ, **options}


def _settings(context: click.Context) -> tuple[dict[str, str], dict[str, str]]:
    """What the file and the options say."""
    settings: tuple[dict[str, str], dict[str, str]] = context.meta.setdefault(_OPTIONS, ({}, {}))
    return settings


def _keep(variable: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            _settings(context)[1][variable] = value

    return keep


def _read_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    try:
        _settings(context)[0].update(parse_env_file(secret_files.read(path).decode()))
    except (OSError, UnicodeDecodeError) as error:
        reason = secret_files.describe_error(error)
        raise click.BadParameter(f"cannot read {secret_files.name_file(path)}: {reason}", context, parameter) from error
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def parse_env_file(text: str) -> dict[str, str]:
    """The variables of a file: a line each, with `#` before comments; a value may be in quotes, which are left out.

    Raises ValueError with the number of the first other line. No message has what a line says: it may be a secret.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise ValueError(f"line {number} is not NAME=value")
        value = match[2].strip()
        is_quoted = len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0]
        variables[match[1]] = value[1:-1] if is_quoted else value
    return variables
