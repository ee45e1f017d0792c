"""`check`: would `run` start here, and what would it meet? A line per check."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Final

import click
import msgspec

from consumer.adapters import logs
from consumer.adapters.kafka.finding import Finding, Verdict
from consumer.adapters.kafka.group_checks import leaders
from consumer.adapters.kafka.log_ends import find_log_ends
from consumer.adapters.kafka.topic_checks import checks
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.cli.exits import CONFIG, OK, UNAVAILABLE, exit_code, settings_of_environment
from consumer.runtime.ports import WorldError
from consumer.runtime.settings import Settings, SettingsError

_COLOURS: Final[dict[Verdict, str]] = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON lines: check, verdict, found, remedy, heals.")
def check(*, as_json: bool) -> None:
    """Check everything that can be known before the start, and change nothing.

    Settings, the way to the brokers, their limits and versions, each permission, the topics and their settings,
    timestamps, the consumer group with its members, offsets and lag. Each line has a verdict (pass, warn or fail) and
    what was found, and below it what to do. Warnings do not fail. What a failure hides is not looked at.

    \b
    Examples:
      conversation-consumer check
      conversation-consumer check --json | jq 'select(.verdict != "pass")'

    Exit codes: 0 `run` would start; 69 Kafka does not answer, or a certificate or token has expired; 78 settings,
    permissions or topics are wrong.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    logs.mute_libraries()
    sys.exit(asyncio.run(_check(as_json=as_json)))


async def _check(*, as_json: bool) -> int:
    """The exit code, after showing each finding as it comes."""
    failures = []
    async for finding in _findings():
        click.echo(msgspec.json.encode(finding) if as_json else _shown(finding))
        if finding.verdict == "fail":
            failures.append(finding)
    if not failures:
        return OK
    return UNAVAILABLE if all(each.heals for each in failures) else CONFIG


def _shown(finding: Finding) -> str:
    mark = click.style(finding.verdict, fg=_COLOURS[finding.verdict])
    line = f"{mark}  {finding.check:<11}  {finding.found}"
    return f"{line}\n{'':6}{'what to do':<11}  {finding.remedy}" if finding.remedy else line


async def _findings() -> AsyncIterator[Finding]:
    """In the order in which a worker would meet them; ends where the next could not be looked at."""
    try:
        settings = settings_of_environment()
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "fail", problem)
        return
    yield Finding("settings", "pass", "each is fit, and they fit each other")
    try:
        async with TopicAdmin(settings) as admin:
            yield Finding("connection", "pass", f"{settings.bootstrap_servers} by {_way_in(settings)}")
            async for finding in _at_the_broker(settings, admin):
                yield finding
    except WorldError as error:
        for line in str(error).splitlines():
            yield Finding("connection", "fail", line, heals=exit_code(error) == UNAVAILABLE)


async def _at_the_broker(settings: Settings, admin: TopicAdmin) -> AsyncIterator[Finding]:
    permissions = await admin.permissions()
    for finding in permissions:
        yield finding
    if any(each.verdict == "fail" for each in permissions):
        return
    for finding in [*await admin.limits(), *await admin.brokers()]:
        yield finding
    found = await admin.find()
    topics = checks(settings, found)
    for finding in topics:
        yield finding
    if settings.input_topic not in found or settings.state_topic not in found:
        return
    partitions = found[settings.input_topic].partitions
    yield admin.descriptors(partitions)
    ends = await find_log_ends(settings, range(partitions))
    led = leaders(settings, ends)
    yield led
    if led.verdict != "pass":  # what follows would wait for them
        return
    for finding in [*await admin.transactions(found), *await admin.group(found, ends)]:
        yield finding


def _way_in(settings: Settings) -> str:
    if settings.security_protocol.startswith("SASL"):
        return f"{settings.security_protocol}, {settings.sasl_mechanism}"
    return settings.security_protocol
