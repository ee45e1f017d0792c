"""The composed service on the embedded broker."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.adapters.kafka.embedded import PARTITIONS
from consumer.adapters.kafka.publisher import AtLeastOncePublisher
from consumer.adapters.kafka.records import partition_of
from consumer.adapters.kafka.writer import KafkaWriter
from consumer.cli import watch
from consumer.cli.service import Service, running
from consumer.runtime.lag_watch import LagWatch
from consumer.runtime.ports import Effects, Misfit, Unreachable
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import Lag
from consumer.simulator.traffic import Draft
from tests.cli.conftest import embedded
from tests.sockets import listening

BREAKER = 5


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(watch, "_LAG_S", 0.1)
    with embedded(dead_letters_consecutive_max=BREAKER) as made:
        yield made


@asynccontextmanager
async def fed(settings: Settings) -> AsyncIterator[tuple[Service, Callable[[int], Any]]]:
    """A running service, and what writes so many broken records to one partition of its input.

    Each is of a conversation of its own.
    """
    keys = (key for number in itertools.count() if partition_of(key := b"k%d" % number, PARTITIONS) == 0)
    async with running(settings) as running_service, KafkaWriter(settings) as writer:

        async def feed(count: int) -> None:
            await writer.write([Draft(next(keys), b"no JSON", 1_767_225_600_000, number) for number in range(count)])
            await writer.flush()

        yield running_service, feed


def sample(running_service: Service, name: str) -> float:
    families = running_service.metrics.registry.collect()
    return sum(s.value for family in families for s in family.samples if s.name == name)


def lag(running_service: Service) -> float:
    return sample(running_service, "conversation_lag_records")


def phases(running_service: Service) -> set[str]:
    return {lane.phase for lane in running_service.worker.lanes.values()}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.05)


async def test_the_partitions_of_the_input_are_told(settings: Settings) -> None:
    async with fed(settings) as (running_service, _):
        await until(lambda: sample(running_service, "conversation_input_partitions") == PARTITIONS)


async def test_a_lag_told_while_a_lane_was_held_up_does_not_stay_when_nothing_is_left(settings: Settings) -> None:
    async with fed(settings) as (running_service, _):
        await until(lambda: phases(running_service) == {"running"})
        running_service.metrics.lagging(0, Lag(1), 0.0)
        await until(lambda: lag(running_service) == 0)


async def test_the_lag_of_a_blocked_lane_grows_with_its_topic(settings: Settings) -> None:
    async with fed(settings) as (running_service, feed):
        await feed(BREAKER)
        await until(lambda: "blocked" in phases(running_service))
        await feed(7)
        await until(lambda: lag(running_service) == 7)
        await feed(40)
        await until(lambda: lag(running_service) == 47)


async def test_the_lag_of_a_failing_lane_grows_with_its_topic(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: AtLeastOncePublisher, __: Effects) -> int | None:
        raise Unreachable("committing: for the test")

    monkeypatch.setattr(AtLeastOncePublisher, "commit", fail)
    async with fed(settings) as (running_service, feed):
        await feed(3)
        await until(lambda: "failing" in phases(running_service))
        await until(lambda: lag(running_service) == 3)
        await feed(1)
        await until(lambda: lag(running_service) == 4)


@pytest.mark.parametrize("name", ["admin", "query"])
async def test_a_port_that_cannot_be_had_is_told_by_its_settings_and_the_other_is_given_back(
    settings: Settings, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        unusable = replace(settings, **{f"{name}_port": taken.getsockname()[1]})
        with pytest.raises(Misfit, match=f"^CC_{name.upper()}_HOST, CC_{name.upper()}_PORT: .*already in use"):
            async with running(unusable):
                pass
        broker = int(settings.bootstrap_servers.rsplit(":", 1)[1])
        assert set(listening()) == {broker, taken.getsockname()[1]}


async def test_watch_that_breaks_ends_the_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it watched would look healthy for ever."""

    async def look(_: LagWatch) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LagWatch, "look", look)
    async with fed(settings) as (running_service, _):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(running_service.worker.failure(), 120)
