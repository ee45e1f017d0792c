"""The composed service on the embedded broker."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from consumer.app import watch
from consumer.app.service import Service, running
from consumer.kafka.embedded import PARTITIONS
from consumer.kafka.publisher import AtLeastOncePublisher
from consumer.kafka.records import partition_of
from consumer.settings import Settings
from consumer.simulator.traffic import Draft
from consumer.tools.traffic_writer import TrafficWriter
from consumer.worker.lag_watch import LagWatch
from consumer.worker.ports import ConfigurationError, Effects, RetriableError
from consumer.worker.standstill import Lag
from tests.cli.conftest import embedded
from tests.sockets import find_listeners

pytestmark = pytest.mark.slow

BREAKER = 5


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(watch, "_LAG_S", 0.1)
    with embedded(dead_letters_consecutive_max=BREAKER) as made:
        yield made


@asynccontextmanager
async def fed(settings: Settings) -> AsyncIterator[tuple[Service, Callable[[int], Any]]]:
    """A running service, and a function that writes broken records, all of different conversations, to partition 0."""
    keys = (key for number in itertools.count() if partition_of(key := b"k%d" % number, PARTITIONS) == 0)
    async with running(settings) as service, TrafficWriter(settings) as writer:

        async def write_broken(count: int) -> None:
            await writer.write([Draft(next(keys), b"no JSON", 1_767_225_600_000, number) for number in range(count)])
            await writer.flush()

        yield service, write_broken


def sample(service: Service, name: str) -> float:
    families = service.metrics.registry.collect()
    return sum(s.value for family in families for s in family.samples if s.name == name)


def lag(service: Service) -> float:
    return sample(service, "conversation_lag_records")


def phases(service: Service) -> set[str]:
    return {lane.phase for lane in service.worker.lanes.values()}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.05)


async def test_the_partitions_of_the_input_are_exported(settings: Settings) -> None:
    async with fed(settings) as (service, _):
        await until(lambda: sample(service, "conversation_input_partitions") == PARTITIONS)


async def test_the_lag_of_a_lane_that_caught_up_is_reset(settings: Settings) -> None:
    async with fed(settings) as (service, _):
        await until(lambda: phases(service) == {"running"})
        service.metrics.lagging(0, Lag(1), 0.0)
        await until(lambda: lag(service) == 0)


async def test_the_lag_of_a_blocked_lane_grows_with_its_topic(settings: Settings) -> None:
    async with fed(settings) as (service, write_broken):
        await write_broken(BREAKER)
        await until(lambda: "blocked" in phases(service))
        await write_broken(7)
        await until(lambda: lag(service) == 7)
        await write_broken(40)
        await until(lambda: lag(service) == 47)


async def test_the_lag_of_a_failing_lane_grows_with_its_topic(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: AtLeastOncePublisher, __: Effects) -> int | None:
        raise RetriableError("committing: for the test")

    monkeypatch.setattr(AtLeastOncePublisher, "commit", fail)
    async with fed(settings) as (service, write_broken):
        await write_broken(3)
        await until(lambda: "failing" in phases(service))
        await until(lambda: lag(service) == 3)
        await write_broken(1)
        await until(lambda: lag(service) == 4)


async def test_the_only_worker_of_a_broker_that_describes_no_group_is_whole(settings: Settings) -> None:
    """The embedded broker, on which the demo runs."""
    async with running(settings) as service, aiohttp.ClientSession() as client:
        async with asyncio.timeout(60):
            while True:
                async with client.get(f"http://127.0.0.1:{service.query_port}/api/v1/overview") as answer:
                    overview = await answer.json()
                if overview["complete"]:
                    break
                await asyncio.sleep(0.1)
        assert overview["partitions"] == list(range(PARTITIONS))


@pytest.mark.parametrize("name", ["admin", "query"])
async def test_a_port_that_is_taken_is_named_and_the_other_is_closed(settings: Settings, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        conflicting = replace(settings, **{f"{name}_port": taken.getsockname()[1]})
        before = find_listeners()
        with pytest.raises(
            ConfigurationError, match=f"^CC_{name.upper()}_HOST, CC_{name.upper()}_PORT: .*already in use"
        ):
            async with running(conflicting):
                pass
        assert find_listeners() == before


async def test_watch_that_fails_ends_the_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the worker would look healthy for ever."""

    async def look(_: LagWatch) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LagWatch, "look", look)
    async with fed(settings) as (service, _):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(service.worker.failure(), 120)


async def test_the_query_port_can_be_switched_off(settings: Settings) -> None:
    before = find_listeners()
    async with running(replace(settings, query_port="off")) as service:
        assert service.query_port is None
        assert set(find_listeners()) - set(before) == {service.admin_port}


async def test_the_audit_can_be_switched_on(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        running(replace(settings, query_audit="on")) as service,
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{service.query_port}/"),
    ):
        assert "query.asked" in capsys.readouterr().out
