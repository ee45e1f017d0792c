"""Clients and unreachable brokers."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup

from consumer.adapters.kafka import nodes


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0


class Connection:
    def connected(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: clock.now_s)
        patched.setattr(nodes, "_attempts", {})
        yield clock


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The brokers that were tried; those above 10 are unreachable."""
    found: list[Any] = []

    async def connect(client: AIOKafkaClient, node: Any, *, group: int, no_hint: bool) -> Connection | None:
        assert (group, no_hint) == (ConnectionGroup.DEFAULT, False)
        found.append(node)
        if node > 10:
            return None
        client._conns[node, group] = connection = Connection()
        return connection

    monkeypatch.setattr(nodes, "_connect", connect)
    return found


async def client_of(*numbers: int) -> AIOKafkaClient:
    client = AIOKafkaClient()
    brokers = {number: (number, f"kafka-{number}", 9092, None) for number in numbers}
    client.cluster._brokers = {
        number: type("Broker", (), {"nodeId": number, "host": host, "port": port})
        for number, (_, host, port, _) in brokers.items()
    }
    return client


async def connect(client: AIOKafkaClient, node: int) -> Any:
    return await nodes._connect_within_bounds(client, node)


@pytest.mark.usefixtures("attempts", "clock")
async def test_broker_that_is_connected_is_preferred() -> None:
    client = await client_of(*range(1, 9))
    assert {nodes._choose(client) for _ in range(200)} > {1, 2}
    await connect(client, 7)
    assert {nodes._choose(client) for _ in range(200)} == {7}


async def test_client_without_brokers_has_none_to_choose() -> None:
    assert nodes._choose(await client_of()) is None


async def test_broker_out_of_reach_is_tried_once_a_second_by_all_clients(attempts: list[Any], clock: Clock) -> None:
    """Freely at first, since a broker that restarts is back soon."""
    clients = [await client_of(11), await client_of(11)]
    for _ in range(3):
        for client in clients:
            assert await connect(client, 11) is None
        clock.now_s += 1.0
    assert len(attempts) == 6
    clock.now_s += 1.0
    attempts.clear()
    for _ in range(100):
        for client in clients:
            assert await connect(client, 11) is None
        clock.now_s += 0.1
    assert 9 <= len(attempts) <= 11


@pytest.mark.usefixtures("attempts")
async def test_success_lets_every_client_connect_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [await client_of(5), await client_of(5)]
    real = nodes._connect

    async def refuse(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(nodes, "_connect", refuse)
    await connect(clients[0], 5)
    clock.now_s += 10.0
    await connect(clients[0], 5)
    monkeypatch.setattr(nodes, "_connect", real)
    assert await connect(clients[0], 5) is None
    clock.now_s += 1.5
    assert [await connect(client, 5) is not None for client in clients] == [True, True]


async def test_connecting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(nodes, "_connect", hang)
    monkeypatch.setattr(nodes, "_CONNECT_S", 0.01)
    monkeypatch.setattr(nodes, "_attempts", {})
    assert await connect(await client_of(5), 5) is None


@pytest.mark.usefixtures("clock")
async def test_reach_finds_the_broker_that_answers(attempts: list[Any]) -> None:
    client = await client_of(11, 12, 3)
    client.ready = lambda node: connect(client, node)
    await nodes.reach(client)
    assert attempts[-1] == 3
