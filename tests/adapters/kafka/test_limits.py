"""Settings against the limits of brokers."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.adapters.kafka.finding import Verdict
from consumer.adapters.kafka.limits import READ, checks
from consumer.runtime.settings import Settings

SETTINGS = Settings(bootstrap_servers="b:1", session_timeout_ms=45_000, transaction_timeout_ms=30_000)
USUAL = dict(zip(READ, ("6000", "1800000", "900000"), strict=True))


@pytest.mark.parametrize(
    ("told", "verdicts", "says"),
    [
        (USUAL, ["pass", "pass"], "CC_SESSION_TIMEOUT_MS=45000 is within"),
        ({READ[0]: "45000", READ[1]: "45000", READ[2]: "30000"}, ["pass", "pass"], "CC_TRANSACTION_TIMEOUT_MS=30000"),
        (
            USUAL | {READ[0]: "45001"},
            ["fail", "pass"],
            "below the brokers' group.min.session.timeout.ms=45001: raise",
        ),
        (
            USUAL | {READ[1]: "44999"},
            ["fail", "pass"],
            "above the brokers' group.max.session.timeout.ms=44999: lower",
        ),
        (USUAL | {READ[2]: "29999"}, ["pass", "fail"], "is above the brokers' transaction.max.timeout.ms=29999: lower"),
        ({}, ["pass"], "not told to this user"),
    ],
)
def test_settings_are_within_the_limits_that_are_told(told: dict[str, Any], verdicts: list[Verdict], says: str) -> None:
    findings = checks(SETTINGS, told)
    assert [each.verdict for each in findings] == verdicts
    assert says in "\n".join(each.told for each in findings)


def test_transactions_have_no_limit_where_there_are_none() -> None:
    settings = replace(SETTINGS, delivery="at_least_once")
    assert [each.verdict for each in checks(settings, USUAL | {READ[2]: "1"})] == ["pass"]
