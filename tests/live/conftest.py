"""Fixtures of the tests on a real broker: one broker for the whole session."""

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.live.broker import KAFKA_VERSION, KEEPS_MARKERS, find_broker, jars, release_of
from tests.live.commands import WAIT_S
from tests.live.harness import Pipeline
from tests.live.placed_cluster import PlacedCluster
from tests.live.secure_broker import SecureBroker

UniqueName = Callable[[str], str]
Topics = Mapping[str, tuple[int, Mapping[str, str]]]
"""Partitions and settings by name."""
CreateTopics = Callable[[str, Topics], Awaitable[None]]


_EXACTLY_ONCE = {"test_exactly_once.py", "test_faults.py", "test_late_requests.py"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is in this folder: pytest asks a conftest of the items below it only.

    Brokers, browsers and workers of a busy machine can be late in ways that no test foresees: a test that fails is run
    once more, and the summary lists it as RERUN. Where effects are counted one failure is enough.
    """
    item.add_marker(pytest.mark.kafka)
    if item.path.name not in _EXACTLY_ONCE:
        item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers of a real Kafka. Without one the test is skipped; under CI that is a failure."""
    broker = find_broker()
    if isinstance(broker, str):
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real Kafka: {broker}")
        pytest.skip(f"needs a real Kafka: {broker}")
    try:
        yield broker.bootstrap_servers
    finally:
        broker.close()


def needed_jars(version: str = KAFKA_VERSION) -> Path:
    """Jars for a broker of a test's own. Without them the test is skipped; under CI that is a failure."""
    found = jars(version)
    if isinstance(found, Path):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"CI needs a Kafka {version} of its own: {found}")
    pytest.skip(f"needs a Kafka {version} of its own: {found}")


@pytest.fixture(scope="session")
def secure_broker() -> Iterator[SecureBroker]:
    """A broker with TLS, SASL and access control, always one of the tests' own, for it has their certificates."""
    broker = SecureBroker(needed_jars())
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def placed_cluster() -> Iterator[PlacedCluster]:
    """Two brokers of the tests' own, which `reachable` starts."""
    cluster = PlacedCluster(needed_jars())
    yield cluster
    for node in reversed(cluster.nodes):  # the controller last
        node.close()


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> UniqueName:
    """A maker of names for topics, groups and transactional ids that no other test or run has."""
    test = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")
    run = uuid.uuid4().hex[:8]
    return lambda purpose: f"{test}.{purpose}.{run}"


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """The topics of one test, and the workers on them. Where no broker loses markers, nothing is there to repair."""
    made = Pipeline(kafka, unique_name("p"), tmp_path)
    await made.create()
    yield made
    await made.close()
    if release_of(KAFKA_VERSION) <= release_of(KEEPS_MARKERS) and "KAFKA_BOOTSTRAP_SERVERS" not in os.environ:
        assert made.events("consumer.broker_defect", "lane.transaction_repaired") == []


@pytest.fixture
def create_topics() -> CreateTopics:
    """A maker of topics with replication factor 1; it returns when every partition has a leader."""

    async def create(bootstrap: str, topics: Topics) -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        async with asyncio.timeout(WAIT_S):
            try:
                await client.start()
                wanted = [NewTopic(name, count, 1, topic_configs=dict(set_)) for name, (count, set_) in topics.items()]
                answer = await client.create_topics(wanted)
                refused = [error for error in answer.topic_errors if error[1] != 0]
                assert not refused, f"topics were not made: {refused!r}"
                while not _led(await client.describe_topics(list(topics)), topics):
                    await asyncio.sleep(0.05)
            finally:
                await client.close()

    return create


def _led(described: list[dict[str, object]], topics: Topics) -> bool:
    found = {topic["topic"]: topic["partitions"] for topic in described}
    return all(
        isinstance(partitions := found.get(name), list)
        and len(partitions) == count
        and all(partition["leader"] >= 0 for partition in partitions)
        for name, (count, _) in topics.items()
    )
