"""`check`: would `run` start here, and which problems would it meet? A line per check."""

import asyncio
import sys
from contextlib import aclosing
from typing import Final

import click
import msgspec

from consumer.cli.exit_codes import CONFIG, OK, UNAVAILABLE, load_settings
from consumer.cli.options import add_connection, environ
from consumer.cli.output import write_json, write_line
from consumer.environment import find_secret_files
from consumer.preflight.all_checks import run_checks
from consumer.preflight.check_result import CheckResult, CheckStatus
from consumer.telemetry import logs

_COLOURS: Final[dict[CheckStatus, str]] = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@add_connection
@click.option("--json", "as_json", is_flag=True, help="JSON lines: check, status, message, remedy, is_transient.")
def check(*, as_json: bool) -> None:
    """Check everything that can be known before the start, and change nothing.

    Settings, the engine, the connection to the brokers, what others can read (files of secrets, digests, encryption),
    the brokers' limits and versions, each permission, the topics and their settings, timestamps, the consumer group
    with its members, offsets and lag, and what the relay does: how its newest records are framed, keyed and timed, and
    how many can be used. Each line has a status (pass, warn or fail) and the result, with the remedy below it. Warnings
    do not fail. A check that needs what has failed is left out.

    \b
    Examples:
      conversation-consumer check
      conversation-consumer check --json | jq 'select(.status != "pass")'

    Exit codes: 0 `run` would start; 69 Kafka does not answer, or a certificate or token has expired; 78 settings,
    permissions or topics are wrong.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    logs.mute()
    sys.exit(asyncio.run(_check(as_json=as_json)))


async def _check(*, as_json: bool) -> int:
    """Print each result as it comes; returns the exit code."""
    failures = []
    async with aclosing(run_checks(load_settings, find_secret_files(environ()))) as results:
        async for result in results:
            if as_json:
                write_json(msgspec.json.encode(result))
            else:
                _write(result)
            if result.status == "fail":
                failures.append(result)
    if not failures:
        return OK
    return UNAVAILABLE if all(result.is_transient for result in failures) else CONFIG


def _write(result: CheckResult) -> None:
    status = click.style(result.status, fg=_COLOURS[result.status])
    write_line(f"  {result.check:<11}  {result.message}", styled=status)
    if result.remedy:
        write_line(f"{'':6}{'what to do':<11}  {result.remedy}")
