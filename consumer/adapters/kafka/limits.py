"""Limits of the brokers that settings have to keep to, as far as they are told: that takes a permission of its own."""

from collections.abc import Mapping
from typing import Final

from consumer.adapters.kafka.finding import Finding
from consumer.runtime.settings import Settings

SESSION_MIN: Final = "group.min.session.timeout.ms"
SESSION_MAX: Final = "group.max.session.timeout.ms"
TRANSACTION_MAX: Final = "transaction.max.timeout.ms"
READ: Final = (SESSION_MIN, SESSION_MAX, TRANSACTION_MAX)
"""Settings of a broker that are looked at."""


def checks(settings: Settings, told: Mapping[str, str]) -> list[Finding]:
    """Whether the settings keep to the limits of a broker. What it does not tell is not looked at."""
    if not told:
        not_told = "not told to this user, which only matters for unusual timeouts: DescribeConfigs on the cluster"
        return [Finding("limits", "pass", not_told)]
    wanted = [("CC_SESSION_TIMEOUT_MS", settings.session_timeout_ms, SESSION_MIN, SESSION_MAX)]
    if settings.delivery == "exactly_once":
        wanted.append(("CC_TRANSACTION_TIMEOUT_MS", settings.transaction_timeout_ms, "", TRANSACTION_MAX))
    return [_within(name, value, told, least, most) for name, value, least, most in wanted]


def _within(name: str, value: int, told: Mapping[str, str], least: str, most: str) -> Finding:
    if least in told and value < int(told[least]):
        return _outside(f"{name}={value} is below the brokers' {least}={told[least]}", "raise")
    if most in told and value > int(told[most]):
        return _outside(f"{name}={value} is above the brokers' {most}={told[most]}", "lower")
    return Finding("limits", "pass", f"{name}={value} is within what the brokers allow")


def _outside(found: str, mend: str) -> Finding:
    return Finding("limits", "fail", found, f"{mend} the setting, or have the brokers' changed")
