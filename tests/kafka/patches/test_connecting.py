"""Unreachable brokers do not delay requests to the others."""

import asyncio
import inspect
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup

from consumer.kafka.connection import connect_to_any
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.patches import connecting


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
        patched.setattr(connecting, "_attempts", {})
        yield clock


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The nodes to which clients tried to connect. Nodes above 10 are unreachable."""
    tried: list[Any] = []

    async def connect(client: AIOKafkaClient, node: Any, *, group: int, no_hint: bool) -> Connection | None:
        assert (group, no_hint) == (ConnectionGroup.DEFAULT, False)
        tried.append(node)
        if node > 10:
            return None
        client._conns[node, group] = connection = Connection()
        return connection

    monkeypatch.setattr(connecting, "_connect", connect)
    return tried


def client_of(*nodes: int) -> AIOKafkaClient:
    client = AIOKafkaClient()
    client.cluster._brokers = {
        node: type("Broker", (), {"nodeId": node, "host": f"kafka-{node}", "port": 9092}) for node in nodes
    }
    return client


async def connect(client: AIOKafkaClient, node: int) -> Any:
    return await connecting._connect_within_bounds(client, node)


@pytest.mark.usefixtures("attempts", "clock")
async def test_connected_broker_is_preferred() -> None:
    client = client_of(*range(1, 9))
    assert {connecting._choose_node(client) for _ in range(200)} > {1, 2}
    await connect(client, 7)
    assert {connecting._choose_node(client) for _ in range(200)} == {7}


async def test_client_without_brokers_chooses_none() -> None:
    assert connecting._choose_node(client_of()) is None


async def test_unreachable_broker_is_tried_once_a_second(attempts: list[Any], clock: Clock) -> None:
    """By all clients together; before that freely, since a broker that restarts is back soon."""
    clients = [client_of(11), client_of(11)]
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
async def test_success_ends_the_pauses_of_every_client(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [client_of(5), client_of(5)]
    real = connecting._connect

    async def refuse(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(connecting, "_connect", refuse)
    await connect(clients[0], 5)
    clock.now_s += 10.0
    await connect(clients[0], 5)
    monkeypatch.setattr(connecting, "_connect", real)
    assert await connect(clients[0], 5) is None
    clock.now_s += 1.5
    assert [await connect(client, 5) is not None for client in clients] == [True, True]


async def test_attempt_to_connect_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(connecting, "_connect", hang)
    monkeypatch.setattr(connecting, "_CONNECT_S", 0.01)
    monkeypatch.setattr(connecting, "_attempts", {})
    assert await connect(client_of(5), 5) is None


@pytest.mark.usefixtures("clock")
async def test_any_broker_that_can_be_reached_is_found(attempts: list[Any]) -> None:
    client = client_of(11, 12, 3)
    client.ready = lambda node: connect(client, node)
    await connect_to_any(client)
    assert attempts[-1] == 3


async def test_aiokafka_connects_by_the_patched_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real client at the embedded broker; the original method has the parameters that the patch passes on."""
    assert list(inspect.signature(connecting._connect).parameters) == ["self", "node_id", "group", "no_hint"]
    connecting.install()
    original, calls = connecting._connect, []

    async def connect(client: AIOKafkaClient, node: Any, *, group: int, no_hint: bool) -> Any:
        calls.append(node)
        return await original(client, node, group=group, no_hint=no_hint)

    monkeypatch.setattr(connecting, "_connect", connect)
    with EmbeddedBroker() as broker:
        client = AIOKafkaClient(bootstrap_servers=broker.bootstrap_servers)
        await client.bootstrap()
        node = client.get_random_node()
        assert await client.ready(node)
        assert calls == [node]
        await client.close()
