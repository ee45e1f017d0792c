"""Three real brokers that replicate to each other, each behind a proxy of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import CoordinationType
from aiokafka.errors import KafkaError

from consumer.kafka.coordinator import find
from tests.live.broker import FORMAT, LocalBroker
from tests.live.lost_markers import LostMarker
from tests.live.proxy import END_TXN, Proxy

NODES = 3
_INSYNC_MIN = 2
_ASK_S = 15.0
_FOUND_S = 120.0


class Node(LocalBroker):
    """One of several brokers; `peers` has to be set before it starts."""

    def __init__(self, jars: Path, number: int, replicas: int = NODES, format_options: Sequence[str] = FORMAT) -> None:
        super().__init__(jars, format_options=format_options)
        self.number = number
        self._replicas = replicas
        self.peers: Sequence[Node] = ()
        self._java_options.append("-Xmx320m")

    def _properties(self) -> dict[str, str]:
        return super()._properties() | {
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(f"{peer.number}@127.0.0.1:{peer._controller}" for peer in self.peers),
            "default.replication.factor": str(self._replicas),
            "min.insync.replicas": str(min(_INSYNC_MIN, self._replicas)),
            "offsets.topic.replication.factor": str(self._replicas),
            "transaction.state.log.replication.factor": str(NODES),
            "transaction.state.log.min.isr": str(_INSYNC_MIN),
            "broker.session.timeout.ms": "6000",  # how long a killed one is still taken for alive
        }


class Cluster:
    """Replication factor 3 with 2 in sync, for the topics of offsets and of transactions as well.

    With fewer `replicas` partitions have no leader while a broker is away, but for those of the transactions' topic:
    that is when brokers lose markers.
    """

    def __init__(self, jars: Path, replicas: int = NODES, format_options: Sequence[str] = FORMAT) -> None:
        self._replicas = replicas
        self._format_options = format_options
        self.nodes = self._make_nodes(jars)
        for node in self.nodes:
            node._cluster_id = self.nodes[0]._cluster_id
        self.proxies = [Proxy(node.front_port, node.behind_port) for node in self.nodes]

    def _make_nodes(self, jars: Path) -> Sequence[Node]:
        nodes = [Node(jars, number, self._replicas, self._format_options) for number in range(1, NODES + 1)]
        for node in nodes:
            node.peers = nodes
        return nodes

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(node.bootstrap_servers for node in self.nodes)

    @property
    def front(self) -> str:
        """Bootstrap servers that lead through the proxies."""
        return ",".join(f"127.0.0.1:{node.front_port}" for node in self.nodes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """All nodes and proxies, until the end of the context."""
        try:
            async with self.reachable():
                yield self
        finally:
            await self._all([node.close for node in self.nodes])

    @contextlib.asynccontextmanager
    async def reachable(self) -> AsyncIterator[Self]:
        """All nodes and proxies; the nodes run on after the end of the context."""
        await self.start()
        async with contextlib.AsyncExitStack() as stack:
            for proxy in self.proxies:
                await stack.enter_async_context(proxy)
            yield self

    async def start(self) -> None:
        """Start those that are down, together: one alone waits for a quorum. Raises BrokerError."""
        await self._all([node.start for node in self.nodes if not node.is_up])

    async def save(self, folder: Path) -> None:
        """Let all of them go down in order, and copy what they hold and their logs, to look into what went wrong."""
        await self._all([node.stop for node in self.nodes])
        for node in self.nodes:
            node.save(folder / f"broker-{node.number}")

    async def kill(self) -> None:
        """Kill all of them."""
        await self._all([node.kill for node in self.nodes if node.is_up])

    def lost_markers(self) -> list[LostMarker]:
        """What all nodes have logged so far of markers that they skipped."""
        return [marker for node in self.nodes for marker in node.lost_markers()]

    async def transaction_is_ending(self, within_s: float) -> None:
        """Wait until a worker behind the proxies ends a transaction: the request is about to be passed on."""
        ending = asyncio.Event()

        async def note(kind: int) -> None:
            if kind == END_TXN:
                ending.set()

        for proxy in self.proxies:
            proxy.passes = note
        try:
            async with asyncio.timeout(within_s):
                await ending.wait()
        finally:
            for proxy in self.proxies:
                proxy.passes = None

    async def leader(self, topic: str, partition: int) -> Node:
        """The broker that leads a partition."""

        async def ask(admin: AIOKafkaAdminClient) -> int:
            (found,) = await admin.describe_topics([topic])
            return next(int(one["leader"]) for one in found["partitions"] if one["partition"] == partition)

        return await self._ask(ask)

    async def group_coordinator(self, group_id: str) -> Node:
        return await self._ask(lambda admin: find(admin._client, CoordinationType.GROUP, group_id))

    async def transaction_coordinator(self, transactional_id: str) -> Node:
        return await self._ask(lambda admin: find(admin._client, CoordinationType.TRANSACTION, transactional_id))

    async def _ask(self, ask: Callable[[AIOKafkaAdminClient], Awaitable[int]]) -> Node:
        """The node of a number, asked for until there is one: brokers may just have died, or be starting."""
        async with asyncio.timeout(_FOUND_S):
            while True:
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with self._admin() as admin:
                        number = await ask(admin)
                    if number > 0:
                        return self._node(number)
                await asyncio.sleep(0.1)

    def _node(self, number: int) -> Node:
        return self.nodes[number - 1]

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        async with asyncio.timeout(_ASK_S):
            try:
                await client.start()
                yield client
            finally:
                await client.close()

    @staticmethod
    async def _all(calls: Sequence[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(max_workers=NODES) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, call) for call in calls))
