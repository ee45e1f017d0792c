"""Timeouts against the limits of the brokers."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.preflight.broker_limits import READ, checks
from consumer.preflight.check_result import CheckStatus
from consumer.settings import Settings

SETTINGS = Settings(bootstrap_servers="b:1", session_timeout_ms=45_000, commit_timeout_s=20.0)
USUAL = dict(zip(READ, ("6000", "1800000", "900000"), strict=True))


@pytest.mark.parametrize(
    ("limits", "statuses", "says"),
    [
        (USUAL, ["pass", "pass"], "CC_SESSION_TIMEOUT_MS=45000 is within"),
        (
            {READ[0]: "45000", READ[1]: "45000", READ[2]: "30000"},
            ["pass", "pass"],
            "transaction timeout (by CC_COMMIT_TIMEOUT_S)=30000",
        ),
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
        ({}, ["pass"], "not reported to this user"),
    ],
)
def test_timeouts_have_to_be_within_the_reported_limits(
    limits: dict[str, Any], statuses: list[CheckStatus], says: str
) -> None:
    results = checks(SETTINGS, limits)
    assert [result.status for result in results] == statuses
    assert says in "\n".join(result.sentence for result in results)


def test_at_least_once_has_no_transaction_timeout() -> None:
    settings = replace(SETTINGS, delivery="at_least_once")
    assert [result.status for result in checks(settings, USUAL | {READ[2]: "1"})] == ["pass"]
