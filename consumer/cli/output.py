"""What the commands print. Nothing else writes to a terminal, so that text from elsewhere is safe there."""

import click

from consumer.terminal_text import escape_json, replace_controls


def write_line(line: str = "", *, err: bool = False, styled: str = "") -> None:
    """Print one line, without control characters, after `styled`, which may have colours."""
    click.echo(styled + replace_controls(line), err=err)  # noqa: TID251 - the one place


def write_json(encoded: str | bytes) -> None:
    """Print a JSON document in one line, with control characters escaped."""
    document = encoded if isinstance(encoded, str) else encoded.decode()
    click.echo(escape_json(document))  # noqa: TID251 - as above
