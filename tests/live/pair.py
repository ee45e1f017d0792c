"""Two real brokers of one cluster, of which the second can be killed: its partitions then have no leader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import CoordinationType

from consumer.adapters.kafka.coordinator import find
from tests.live.broker import LocalBroker

FIRST, SECOND = 1, 2
_ASK_S = 30.0


class _Member(LocalBroker):
    """The first is the controller as well."""

    def __init__(self, jars: Path, number: int) -> None:
        super().__init__(jars)
        self.number = number
        self.controller = self
        self._options = ("-Xmx320m", "-XX:TieredStopAtLevel=1")

    def _properties(self) -> dict[str, str]:
        properties = super()._properties() | {
            "node.id": str(self.number),
            "controller.quorum.voters": f"{FIRST}@127.0.0.1:{self.controller._controller}",
            "broker.session.timeout.ms": "3000",  # how long a killed one is still taken for alive
            "broker.heartbeat.interval.ms": "500",
        }
        if self.controller is self:
            return properties
        listeners = ",".join(
            listener for listener in properties["listeners"].split(",") if not listener.startswith("CONTROLLER")
        )
        return properties | {"process.roles": "broker", "listeners": listeners}


class Pair:
    """Each partition has one replica. Those of the brokers' own topics are on the first."""

    def __init__(self, jars: Path) -> None:
        self.first, self.second = _Member(jars, FIRST), _Member(jars, SECOND)
        self.second.controller = self.first
        self.second._cluster_id = self.first._cluster_id

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Pair"]:
        """Both, until the end of the context."""
        try:
            await asyncio.to_thread(self.first.start)
            async with self._admin() as admin:
                for kind in (CoordinationType.GROUP, CoordinationType.TRANSACTION):
                    await find(admin._client, kind, "any")  # it has the topic made, while there is no second broker
            await asyncio.to_thread(self.second.start)
            yield self
        finally:
            await asyncio.to_thread(self.second.close)
            await asyncio.to_thread(self.first.close)

    async def create(self, topic: str, nodes: Mapping[int, int], configs: Mapping[str, str]) -> None:
        """Make a topic whose partitions are on these nodes."""
        places = {partition: [node] for partition, node in nodes.items()}
        async with self._admin() as admin:
            answer = await admin.create_topics(
                [NewTopic(topic, -1, -1, replica_assignments=places, topic_configs=dict(configs))]
            )
        assert [error_code for _, error_code, *_ in answer.topic_errors] == [0], answer

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        client = AIOKafkaAdminClient(bootstrap_servers=self.first.bootstrap_servers)
        async with asyncio.timeout(_ASK_S):
            try:
                await client.start()
                yield client
            finally:
                await client.close()
