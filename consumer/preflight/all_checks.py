"""Every check of `check`, in the order in which a worker would meet the problems."""

from collections.abc import AsyncGenerator, Callable, Mapping

from consumer.environment import SettingsError
from consumer.kafka.log_ends import find_log_ends
from consumer.preflight import engine_check, relay_checks, security_checks
from consumer.preflight.check_result import CheckResult
from consumer.preflight.group_checks import leaders, output_leaders
from consumer.preflight.topic_admin import TopicAdmin
from consumer.preflight.topic_checks import checks
from consumer.settings import Settings
from consumer.worker.ports import ExternalError, RetriableError


async def run_checks(
    load_settings: Callable[[], Settings], files: Mapping[str, str]
) -> AsyncGenerator[CheckResult, None]:
    """The results, as they come; ends where a failure keeps the next check from running.

    `files` are those of secrets, by variable. `load_settings` may raise SettingsError. What keeps the brokers from
    answering is a result too, so this raises nothing else.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        for problem in error.problems:
            yield CheckResult("settings", "fail", problem)
        return
    yield CheckResult("settings", "pass", "all values are valid, alone and together")
    yield engine_check.check(settings.engine)
    try:
        async with TopicAdmin(settings) as admin:
            yield CheckResult("connection", "pass", f"{settings.bootstrap_servers} by {_describe_protocol(settings)}")
            for result in security_checks.all_checks(settings, files):
                yield result
            async for result in _check_cluster(settings, admin):
                yield result
    except ExternalError as error:
        for line in str(error).splitlines():
            yield CheckResult("connection", "fail", line, is_transient=isinstance(error, RetriableError))


async def _check_cluster(settings: Settings, admin: TopicAdmin) -> AsyncGenerator[CheckResult, None]:
    permissions = await admin.permissions()
    for result in permissions:
        yield result
    if any(result.status == "fail" for result in permissions):
        return
    for result in [*await admin.limits(), *await admin.brokers()]:
        yield result
    topics = await admin.find()
    for result in checks(settings, topics):
        yield result
    if settings.input_topic not in topics or settings.state_topic not in topics:
        return
    partitions = topics[settings.input_topic].partitions
    yield admin.descriptors(partitions)
    ends = await find_log_ends(settings, range(partitions))
    leadership = [leaders(settings, ends), *output_leaders(settings, topics)]
    for result in leadership:
        yield result
    if any(result.status != "pass" for result in leadership):  # the next checks ask those leaders and would wait
        return
    for result in [*await admin.transactions(topics), *await admin.group(topics, ends)]:
        yield result
    for result in await relay_checks.check(settings, partitions):
        yield result


def _describe_protocol(settings: Settings) -> str:
    if settings.security_protocol.startswith("SASL"):
        return f"{settings.security_protocol}, {settings.sasl_mechanism}"
    return settings.security_protocol
