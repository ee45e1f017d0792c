"""Two brokers whose partitions a test places by hand, so that one of them can take away chosen leaders and no more."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from tests.live.broker import SETTINGS
from tests.live.cluster import Cluster, Node

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"

_POLL_S = 0.1
_WITHIN_S = 120.0
_FENCED = 39
"""A broker that a busy machine has kept from its heartbeats, or any other assignment that cannot be."""


class PlacedNode(Node):
    """One without replicas elsewhere. It is a controller as well if it is among its own peers."""

    def _properties(self) -> dict[str, str]:
        properties = super()._properties() | {
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "broker.heartbeat.interval.ms": "250",
            "broker.session.timeout.ms": "1000",  # a killed one is fenced that soon
        }
        if self in self.peers:
            return properties
        listeners = [name for name in properties["listeners"].split(",") if not name.startswith("CONTROLLER:")]
        return properties | {"process.roles": "broker", "listeners": ",".join(listeners)}


class PlacedCluster(Cluster):
    """`steady` is the only controller, so that a cluster is left when `fragile` is killed."""

    _has_internal_topics = False

    def _make_nodes(self, jars: Path) -> Sequence[Node]:
        nodes = [PlacedNode(jars, number) for number in (1, 2)]
        for node in nodes:
            node.peers = nodes[:1]
        return nodes

    @property
    def steady(self) -> Node:
        return self.nodes[0]

    @property
    def fragile(self) -> Node:
        return self.nodes[1]

    @property
    def bootstrap_servers(self) -> str:
        return self.steady.bootstrap_servers

    async def create_topic(self, name: str, nodes: Sequence[Node], configs: Mapping[str, str]) -> None:
        """Create a topic with a partition on each of these nodes, and wait until they lead them."""
        topic = NewTopic(
            name, -1, -1, {partition: [node.number] for partition, node in enumerate(nodes)}, dict(configs)
        )
        async with asyncio.timeout(_WITHIN_S):
            while True:
                async with self._admin() as admin:
                    (error,) = (await admin.create_topics([topic])).topic_errors
                if error[1] == 0:
                    break
                assert error[1] == _FENCED, f"no topic was made: {error!r}"
                await asyncio.sleep(_POLL_S)
        await self._led_by(name, {node.number for node in nodes})

    async def create_internal_topics(self, offsets_on: Node) -> None:
        """Create the brokers' own topics before they do, the transactions' on the steady node; once."""
        if self._has_internal_topics:
            return
        self._has_internal_topics = True
        compact = {"cleanup.policy": "compact"}
        offsets = int(SETTINGS["offsets.topic.num.partitions"])
        transactions = int(SETTINGS["transaction.state.log.num.partitions"])
        await self.create_topic(CONSUMER_OFFSETS, [offsets_on] * offsets, compact)
        await self.create_topic(TRANSACTION_STATE, [self.steady] * transactions, compact)

    async def has_no_leader(self, topic: str) -> None:
        """Wait until the steady node knows that no partition of a topic has a leader."""
        await self._led_by(topic, {-1})

    async def _led_by(self, topic: str, leaders: set[int]) -> None:
        async with asyncio.timeout(_WITHIN_S):
            while await self._leaders(topic) != leaders:
                await asyncio.sleep(_POLL_S)

    async def _leaders(self, topic: str) -> set[int]:
        """The numbers of the nodes that lead partitions of a topic, -1 for none; empty if no node knows just now."""
        try:
            async with self._admin() as admin:
                (found,) = await admin.describe_topics([topic])
        except (KafkaError, TimeoutError):
            return set()
        return {partition["leader"] for partition in found["partitions"]}
