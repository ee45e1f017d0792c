"""What holds for all tests: how examples are drawn; and under CI a real-Kafka test that did not run is a failure."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("kafka"):
        report.outcome = "failed"
        report.longrepr = f"a real-Kafka test was skipped under CI: {report.longrepr}"
    return report
