"""The four topics on the broker: finding them, looking whether they fit, and making them when asked to.

Nothing is ever created silently: `create` is only called by the command `topics --create`.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    KafkaError,
    NodeNotReadyError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from consumer.adapters.kafka import brokers, descriptors, group_checks, limits, permissions, transaction_checks
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.connection import connection_arguments, start, unconnected
from consumer.adapters.kafka.faults import USER, world_error
from consumer.adapters.kafka.finding import Finding, refuse
from consumer.adapters.kafka.nodes import reach
from consumer.adapters.kafka.permissions import TOPIC, Grant
from consumer.adapters.kafka.topic_checks import CONFIGS_READ, TopicFound, checks, plans
from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import LogEnd

_NOT_ALLOWED = (PolicyViolationError, InvalidConfigurationError, InvalidPartitionsError, InvalidRequestError)
_FINE_CODES = (0, TopicAlreadyExistsError.errno)
_CLOSE_S = 5.0
_VISIBLE_POLL_S = 0.05
_VERSIONS_S = 5.0
_ASKING = "asking what the user may do"


class TopicAdmin:
    """The broker's topics, as an async context manager. Raises WorldError from every method."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._client = AIOKafkaAdminClient(**connection_arguments(settings))

    async def __aenter__(self) -> Self:
        await start(self._connect(), self._settings, self._timeout_s, self._close)
        return self

    async def _connect(self) -> None:
        await self._client.start()
        await reach(self._client._client)  # noqa: SLF001 - the admin client asks any broker

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def find(self) -> dict[str, TopicFound]:
        """Those of the four topics that exist. Raises Misfit if one may not be looked at."""
        configs = await self._configs()
        if not configs:
            return {}
        described = await self._bounded(self._client.describe_topics(list(configs)), "describing topics")
        self._refuse(
            [each["topic"] for each in described if each["error_code"] == TopicAuthorizationFailedError.errno],
            "Describe",
        )
        found: dict[str, TopicFound] = {}
        for each in described:
            name, partitions = each["topic"], each["partitions"]
            if each["error_code"]:
                raise world_error(for_code(each["error_code"])(), f"describing topic {name!r}")
            if partitions:
                replicas = min(len(one["replicas"]) for one in partitions)
                found[name] = TopicFound(len(partitions), replicas, configs[name])
        return {name: found[name] for name in configs if name in found}

    async def _configs(self) -> dict[str, dict[str, str]]:
        """Settings of those that exist, in the plans' order.

        Asking for metadata by name could create a topic, and the list of all topics leaves out those that the user may
        not see; this question does neither.
        """
        resources = [ConfigResource(ConfigResourceType.TOPIC, plan.name) for plan in plans(self._settings)]
        answers = await self._bounded(self._client.describe_configs(resources), "describing the topics' settings")
        configs: dict[str, dict[str, str]] = {}
        hidden: list[str] = []
        for answer in answers:
            for error_code, _, _, name, entries in answer.resources:
                if error_code == UnknownTopicOrPartitionError.errno:
                    continue
                if error_code == TopicAuthorizationFailedError.errno:
                    hidden.append(name)
                    continue
                if error_code:
                    raise world_error(for_code(error_code)(), f"describing the settings of topic {name!r}")
                configs[name] = {
                    entry[0]: entry[1] for entry in entries if entry[0] in CONFIGS_READ and entry[1] is not None
                }
        self._refuse(hidden, "DescribeConfigs")
        return {plan.name: configs[plan.name] for plan in plans(self._settings) if plan.name in configs}

    def _refuse(self, hidden: list[str], operation: str) -> None:
        """Raise Misfit with what has to be granted, if there is any topic that may not be looked at."""
        settings = {plan.name: plan.setting for plan in plans(self._settings)}
        grants = [Grant(TOPIC, name, settings[name], (operation,)) for name in hidden]
        if grants:
            raise Misfit("\n".join(each.remedy(self._settings) for each in grants))

    async def permissions(self) -> list[Finding]:
        """A finding for each permission that `run` needs, as far as the broker tells."""
        asked = permissions.missing(self._client._client, self._settings)  # noqa: SLF001 - the admin client has no such request
        return permissions.checks(self._settings, await self._bounded(asked, _ASKING))

    async def limits(self) -> list[Finding]:
        """Whether the settings keep to the limits of the brokers, as far as one of them tells."""
        return limits.checks(self._settings, await self._limits())

    async def transactions(self, found: dict[str, TopicFound]) -> list[Finding]:
        """Whether transactions are open in the topics for longer than they may be."""
        partitions = {name: topic.partitions for name, topic in found.items()}
        asked = transaction_checks.find(self._client._client, self._settings, partitions)  # noqa: SLF001 - as above
        transactions = await self._bounded(asked, "looking for open transactions")
        now_ms = time.time_ns() // 1_000_000
        return transaction_checks.checks(self._settings, await self._limits(), transactions, now_ms)

    async def _limits(self) -> dict[str, str]:
        node = next(iter(self._client._client.cluster.brokers())).nodeId  # noqa: SLF001 - as above
        resource = ConfigResource(ConfigResourceType.BROKER, str(node), dict.fromkeys(limits.READ))
        answers = await self._bounded(self._client.describe_configs([resource]), "describing a broker's settings")
        return {
            entry[0]: entry[1]
            for answer in answers
            for error_code, _, _, _, entries in answer.resources
            if not error_code
            for entry in entries
            if entry[1] is not None
        }

    def descriptors(self, partitions: int) -> Finding:
        """Whether this process may have as many file descriptors as so many partitions of the input need."""
        return descriptors.check(partitions, len(self._client._client.cluster.brokers()))  # noqa: SLF001 - as above

    async def brokers(self) -> list[Finding]:
        """Whether any broker that answers has a version that loses markers of transactions."""
        if self._settings.delivery != "exactly_once":
            return []
        seconds = min(self._timeout_s, _VERSIONS_S)
        return [brokers.check(await brokers.find(self._client._client, seconds))]  # noqa: SLF001 - as above

    async def group(self, found: dict[str, TopicFound], ends: Mapping[int, LogEnd | str]) -> list[Finding]:
        """What a worker that joins the group now will meet.

        Input and state topic have to be among those found; the `ends` are those of the input's partitions.
        """
        partitions = {name: found[name].partitions for name in (self._settings.input_topic, self._settings.state_topic)}
        asked = group_checks.find(self._client._client, self._settings, partitions, ends)  # noqa: SLF001 - as above
        return group_checks.checks(self._settings, await self._bounded(asked, "looking at the consumer group"))

    async def verify(self) -> int:
        """The input topic's partition count. Raises Misfit with everything that is missing or does not fit."""
        refuse(await self.permissions())
        found = await self.find()
        refuse(checks(self._settings, found))
        return found[self._settings.input_topic].partitions

    async def create(self, partitions: int, replication_factor: int) -> list[str]:
        """Create those of the four topics that do not exist, and wait until they are there; returns their names.

        An input topic that exists decides the partitions instead of `partitions`. A topic that somebody else creates
        meanwhile is left as it is. Raises Misfit with every topic that the broker refused.
        """
        found = await self.find()
        missing = [plan for plan in plans(self._settings) if plan.name not in found]
        if not missing:
            return []
        source = found.get(self._settings.input_topic)
        count = partitions if source is None else source.partitions
        new = [NewTopic(plan.name, count, replication_factor, topic_configs=plan.configs) for plan in missing]
        answer = await self._bounded(self._client.create_topics(new), "creating topics")
        codes = {name: error_code for name, error_code, *_ in answer.topic_errors}
        refused = [_refusal(name, for_code(code)()) for name, code in codes.items() if code not in _FINE_CODES]
        if refused:
            kind = Misfit if any(isinstance(each, Misfit) for each in refused) else Unreachable
            raise kind("\n".join(map(str, refused)))
        await self._bounded(self._visible({plan.name for plan in missing}), "waiting for the new topics")
        return [plan.name for plan in missing if codes.get(plan.name) == 0]

    async def _visible(self, names: set[str]) -> None:
        """Wait for brokers to hear of topics that the controller has made."""
        while True:
            try:
                if names <= (await self.find()).keys():
                    return
            except Unreachable:
                pass  # a partition without a leader yet; the caller bounds the wait
            await asyncio.sleep(_VISIBLE_POLL_S)

    async def _close(self) -> None:
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            await within(_CLOSE_S, self._client.close())

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await within(self._timeout_s, doing)
        except NodeNotReadyError as error:  # an address that the cluster names cannot be connected to
            raise await unconnected(self._settings, world_error(error, what)) from error
        except (KafkaError, TimeoutError, OSError) as error:
            raise world_error(error, what) from error


def _refusal(name: str, error: KafkaError) -> WorldError:
    kind = type(error).__name__
    if isinstance(error, InvalidReplicationFactorError):
        return Misfit(f"topic {name!r}: fewer brokers than --replication-factor ({kind}): lower it, or add brokers")
    if isinstance(error, TopicAuthorizationFailedError | ClusterAuthorizationFailedError):
        return Misfit(f"topic {name!r}: grant {USER} Create on the topic or the cluster ({kind})")
    if isinstance(error, _NOT_ALLOWED):
        return Misfit(f"topic {name!r}: the broker does not allow it like this ({kind}): ask who runs the cluster")
    return world_error(error, f"creating topic {name!r}")
