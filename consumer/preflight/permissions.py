"""Whether the user has each permission that `run` needs, and the command that grants a missing one."""

from consumer.kafka.acls import Grant, grants
from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings


def checks(settings: Settings, missing: list[Grant]) -> list[CheckResult]:
    """A result for each grant that `run` needs; `missing` as of `acls.find_missing`."""
    by_resource = {(grant.resource, grant.name): grant for grant in missing}
    return [_check(settings, grant, by_resource.get((grant.resource, grant.name))) for grant in grants(settings)]


def _check(settings: Settings, needed: Grant, missing: Grant | None) -> CheckResult:
    if missing is None:
        return CheckResult("permissions", "pass", f"{needed.what} allowed")
    return CheckResult("permissions", "fail", f"{missing.what} not allowed", missing.command(settings))
