"""Shared by all tests: the Hypothesis profiles, markers and fixtures. Under CI a skipped real-Kafka test fails."""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import get_args

import pytest
import structlog
from hypothesis import HealthCheck, settings

from consumer.engine import choice
from consumer.engine.choice import EngineName
from tests.engines import engine_class

_SHOWN_MAX = 4_000
"""Characters of a failure that was not the last word."""

settings.register_profile(
    "default", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# `make check` is quick, for the inner loop; `make test` draws more examples.
settings.register_profile("check", settings.get_profile("default"), max_examples=20)
settings.load_profile("default")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use the browser fixture."""
    if "browser" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.browser)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process of pytest-xdist begin with its share of the tests that may take longest, by their own limits.

    It gives each process a run of as many items. So at the end no process waits for another one's.
    """

    def find_limit_s(item: pytest.Item) -> int:
        marker = item.get_closest_marker("timeout")
        return 0 if marker is None else marker.args[0]

    slow = sorted(filter(find_limit_s, items), key=find_limit_s, reverse=True)
    others = [item for item in items if not find_limit_s(item)]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares = [slow[number::processes] for number in range(processes)]
    room = -(-len(items) // processes)
    items[:] = []
    for share in shares:
        items += share + others[: room - len(share)]
        del others[: room - len(share)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("kafka"):
        report.outcome = "failed"
        report.longrepr = f"a real-Kafka test was skipped under CI: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why tests were run again: a second run that passes would hide it."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"RERUN {report.nodeid}")
        terminalreporter.write_line(report.longreprtext[-_SHOWN_MAX:])


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """A command mutes the log of its process, in which here other tests follow."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module", params=get_args(EngineName))
def each_engine(request: pytest.FixtureRequest) -> Iterator[EngineName]:
    """Run the test on each engine: every lane gets this one."""
    name: EngineName = request.param
    engine_class(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "name_engine", lambda _: name)
        yield name


@pytest.fixture
def turns_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The CPU seconds of every turn of the event loop, by the clock of its thread: other load does not count.

    The objects of earlier tests are frozen: a garbage collection that visits them takes longer than any turn, and would
    count as work of this test.
    """
    taken_s: list[float] = []
    turn: Callable[[asyncio.BaseEventLoop], None] = getattr(asyncio.BaseEventLoop, "_run_once")  # noqa: B009 - no stub

    def measure(loop: asyncio.BaseEventLoop) -> None:
        began_s = time.thread_time()
        turn(loop)
        taken_s.append(time.thread_time() - began_s)

    monkeypatch.setattr(asyncio.BaseEventLoop, "_run_once", measure)
    gc.collect()
    gc.freeze()
    yield taken_s
    gc.unfreeze()
