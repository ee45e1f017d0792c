"""Kafka's admin API, by aiokafka, as far as the checks and the creation of topics need it."""

import contextlib
from collections.abc import Awaitable, Collection, Iterable, Mapping
from typing import Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, NodeNotReadyError
from msgspec import Struct

from consumer.kafka.connection import connect_to_any, connection_arguments, diagnose_connection, start
from consumer.kafka.errors import call
from consumer.kafka.patches.internals import client_of
from consumer.kafka.timeouts import wait
from consumer.settings import Settings
from consumer.worker.ports import RetriableError

T = TypeVar("T")

_CLOSE_S = 5.0


class Configs(Struct, frozen=True):
    """The settings of a topic or a broker, or the error code in their place."""

    name: str
    error_code: int
    values: Mapping[str, str]
    """Without the settings that the broker does not show."""


class Partitions(Struct, frozen=True):
    """The partitions of a topic, or the error code in their place."""

    topic: str
    error_code: int
    replicas: list[int]
    """How many replicas each partition has."""
    leaderless: list[int]
    """The partitions that no broker leads."""


class AdminClient:
    """A client of the admin API, as an async context manager. Raises ExternalError from every method but leaving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.tuning.request_timeout_ms / 1_000
        self._admin = AIOKafkaAdminClient(**connection_arguments(settings))
        self.client: AIOKafkaClient = client_of(self._admin)
        """For requests that aiokafka's admin client does not offer."""

    async def __aenter__(self) -> Self:
        await start(self._connect(), self._settings, self._timeout_s, self._close)
        return self

    async def _connect(self) -> None:
        await self._admin.start()
        await connect_to_any(self.client)

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            await wait(_CLOSE_S, self._admin.close())

    @property
    def brokers(self) -> list[int]:
        """The node ids of the cluster."""
        return [broker.nodeId for broker in self.client.cluster.brokers()]

    async def call(self, awaitable: Awaitable[T], doing: str) -> T:
        """Wait for a request for as long as one may take; `doing` begins the message of an error."""
        try:
            return await call(self._timeout_s, awaitable, doing)
        except RetriableError as error:
            if isinstance(error.__cause__, NodeNotReadyError):  # no connection to the address that the cluster reports
                raise await diagnose_connection(self._settings, error) from error
            raise

    async def describe_topic_configs(self, topics: Iterable[str]) -> list[Configs]:
        """The settings of topics.

        A metadata request could create a topic, and the list of all topics leaves out those that the user may not see.
        This request does neither, so it is the one that finds out whether a topic exists.
        """
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        return await self._describe_configs(resources, "describing the topics' settings")

    async def describe_broker_configs(self, names: Collection[str]) -> Configs:
        """Some settings of a broker, one that is connected: another may not be reachable."""
        node = str(self.client.get_random_node())
        resource = ConfigResource(ConfigResourceType.BROKER, node, dict.fromkeys(names))
        (configs,) = await self._describe_configs([resource], "describing a broker's settings")
        return configs

    async def _describe_configs(self, resources: list[ConfigResource], doing: str) -> list[Configs]:
        responses = await self.call(self._admin.describe_configs(resources), doing)
        return [
            Configs(name, error_code, {entry[0]: entry[1] for entry in entries or () if entry[1] is not None})
            for response in responses
            for error_code, _, _, name, entries in response.resources
        ]

    async def describe_topics(self, topics: Collection[str]) -> list[Partitions]:
        """The partitions of topics that exist."""
        described = await self.call(self._admin.describe_topics(list(topics)), "describing topics")
        return [
            Partitions(
                topic["topic"],
                topic["error_code"],
                [len(partition["replicas"]) for partition in topic["partitions"]],
                sorted(partition["partition"] for partition in topic["partitions"] if partition["leader"] < 0),
            )
            for topic in described
        ]

    async def create_topics(self, topics: list[NewTopic]) -> dict[str, int]:
        """Create topics; returns the error code of each, 0 for success."""
        response = await self.call(self._admin.create_topics(topics), "creating topics")
        return {name: error_code for name, error_code, *_ in response.topic_errors}
