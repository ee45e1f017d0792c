"""What holds for all tests: how examples are drawn; and under CI a real-Kafka test that did not run is a failure."""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Generator, Iterator

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


@pytest.fixture
def turns_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The CPU time of each turn of the event loop, in its own thread: what else the machine does has no part in it.

    What the tests before have left behind is frozen: a collection of garbage that looks at all of it is no work of the
    test's, and takes longer than any turn.
    """
    taken_s: list[float] = []
    turn: Callable[[asyncio.BaseEventLoop], None] = getattr(asyncio.BaseEventLoop, "_run_once")  # noqa: B009 - no stub

    def measured(loop: asyncio.BaseEventLoop) -> None:
        began_s = time.thread_time()
        turn(loop)
        taken_s.append(time.thread_time() - began_s)

    monkeypatch.setattr(asyncio.BaseEventLoop, "_run_once", measured)
    gc.collect()
    gc.freeze()
    yield taken_s
    gc.unfreeze()
