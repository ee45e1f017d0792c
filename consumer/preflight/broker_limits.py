"""Whether timeouts are within the limits of the brokers. To read those takes a permission that `run` does not need."""

from collections.abc import Mapping
from typing import Final

from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings

SESSION_MIN: Final = "group.min.session.timeout.ms"
SESSION_MAX: Final = "group.max.session.timeout.ms"
TRANSACTION_MAX: Final = "transaction.max.timeout.ms"
READ: Final = (SESSION_MIN, SESSION_MAX, TRANSACTION_MAX)
"""The settings of a broker that the checks read."""


def checks(settings: Settings, limits: Mapping[str, str]) -> list[CheckResult]:
    """Whether the settings are within those `limits` that a broker reports."""
    if not limits:
        unknown = "not reported to this user, which only matters for unusual timeouts: DescribeConfigs on the cluster"
        return [CheckResult("limits", "pass", unknown)]
    timeouts = [("CC_SESSION_TIMEOUT_MS", settings.session_timeout_ms, SESSION_MIN, SESSION_MAX)]
    if settings.delivery == "exactly_once":
        name = "transaction timeout (by CC_COMMIT_TIMEOUT_S)"
        timeouts.append((name, settings.transaction_timeout_ms, "", TRANSACTION_MAX))
    return [_check(name, value, limits, least, most) for name, value, least, most in timeouts]


def _check(name: str, value: int, limits: Mapping[str, str], least: str, most: str) -> CheckResult:
    if least in limits and value < int(limits[least]):
        return _fail(f"{name}={value} is below the brokers' {least}={limits[least]}", "raise")
    if most in limits and value > int(limits[most]):
        return _fail(f"{name}={value} is above the brokers' {most}={limits[most]}", "lower")
    return CheckResult("limits", "pass", f"{name}={value} is within what the brokers allow")


def _fail(message: str, change: str) -> CheckResult:
    return CheckResult("limits", "fail", message, f"{change} the setting, or have the brokers' changed")
