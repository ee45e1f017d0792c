"""The four topics on the broker: find them, check them and what a worker depends on, create them on request.

Nothing is created silently: only the command `topics --create` calls `create`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Self

from aiokafka.admin import NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from consumer.kafka import acls
from consumer.kafka.acls import TOPIC, Grant
from consumer.kafka.errors import USER, map_error
from consumer.preflight import (
    broker_limits,
    broker_versions,
    descriptors,
    group_checks,
    permissions,
    transaction_checks,
)
from consumer.preflight.admin_client import AdminClient
from consumer.preflight.check_result import CheckResult, refuse
from consumer.preflight.topic_checks import CONFIGS_READ, TopicFound, checks, plans
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError
from consumer.worker.standstill import LogEnd

_NOT_ALLOWED = (PolicyViolationError, InvalidConfigurationError, InvalidPartitionsError, InvalidRequestError)
_DENIED = TopicAuthorizationFailedError.errno
_CREATED_CODES = (0, TopicAlreadyExistsError.errno)
_VISIBLE_POLL_S = 0.05
_VERSIONS_S = 5.0


class TopicAdmin:
    """The broker's topics, as an async context manager. Raises ExternalError from every method but leaving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plans = plans(settings)
        self._admin = AdminClient(settings)

    async def __aenter__(self) -> Self:
        await self._admin.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.__aexit__()

    async def find(self) -> dict[str, TopicFound]:
        """Those of the four topics that exist, in the order of the plans.

        Raises ConfigurationError if the user may not describe one.
        """
        configs = await self._find_configs()
        if not configs:
            return {}
        described = await self._admin.describe_topics(configs)
        hidden = [partitions.topic for partitions in described if partitions.error_code == _DENIED]
        self._refuse_hidden(hidden, "Describe")
        topics: dict[str, TopicFound] = {}
        for partitions in described:
            name, replicas = partitions.topic, partitions.replicas
            if partitions.error_code:
                raise map_error(for_code(partitions.error_code)(), f"describing topic {name!r}")
            if replicas:
                topics[name] = TopicFound(len(replicas), min(replicas), configs[name], tuple(partitions.leaderless))
        return {name: topics[name] for name in configs if name in topics}

    async def _find_configs(self) -> dict[str, dict[str, str]]:
        """The settings that the checks read, of those topics that exist, in the order of the plans."""
        configs: dict[str, dict[str, str]] = {}
        hidden: list[str] = []
        for topic in await self._admin.describe_topic_configs(plan.name for plan in self._plans):
            if topic.error_code == UnknownTopicOrPartitionError.errno:
                continue
            if topic.error_code == _DENIED:
                hidden.append(topic.name)
            elif topic.error_code:
                raise map_error(for_code(topic.error_code)(), f"describing the settings of topic {topic.name!r}")
            else:
                configs[topic.name] = {name: topic.values[name] for name in CONFIGS_READ if name in topic.values}
        self._refuse_hidden(hidden, "DescribeConfigs")
        return {plan.name: configs[plan.name] for plan in self._plans if plan.name in configs}

    def _refuse_hidden(self, hidden: list[str], operation: str) -> None:
        """Raise ConfigurationError with the missing grants, if there are topics that the user may not describe."""
        settings = {plan.name: plan.setting for plan in self._plans}
        grants = [Grant(TOPIC, name, settings[name], (operation,)) for name in hidden]
        if grants:
            raise ConfigurationError("\n".join(grant.remedy(self._settings) for grant in grants))

    async def permissions(self) -> list[CheckResult]:
        """A result for each permission that `run` needs, as far as the broker reports it."""
        finding = acls.find_missing(self._admin.client, self._settings)
        missing = await self._admin.call(finding, "asking what the user may do")
        return permissions.checks(self._settings, missing)

    async def limits(self) -> list[CheckResult]:
        """Whether the settings are within the limits of the brokers, as far as one of them reports those."""
        return broker_limits.checks(self._settings, await self._find_limits())

    async def transactions(self, topics: dict[str, TopicFound]) -> list[CheckResult]:
        """Whether transactions in the topics have been open for longer than they may be."""
        partitions = {name: topic.partitions for name, topic in topics.items()}
        finding = transaction_checks.find(self._admin.client, self._settings, partitions)
        transactions = await self._admin.call(finding, "looking for open transactions")
        now_ms = time.time_ns() // 1_000_000
        return transaction_checks.checks(self._settings, await self._find_limits(), transactions, now_ms)

    async def _find_limits(self) -> Mapping[str, str]:
        limits = await self._admin.describe_broker_configs(broker_limits.READ)
        return {} if limits.error_code else limits.values

    def descriptors(self, partitions: int) -> CheckResult:
        """Whether this process may have as many file descriptors as all partitions of the input need."""
        return descriptors.check(partitions, len(self._admin.brokers))

    async def brokers(self) -> list[CheckResult]:
        """Whether any broker is too old for transactions as lanes need them, or loses their markers."""
        if self._settings.delivery != "exactly_once":
            return []
        timeout_s = min(self._settings.tuning.request_timeout_ms / 1_000, _VERSIONS_S)
        return [broker_versions.check(await broker_versions.find(self._admin.client, timeout_s))]

    async def group(self, topics: dict[str, TopicFound], ends: Mapping[int, LogEnd | str]) -> list[CheckResult]:
        """What a worker that joins the group now will meet.

        The input and the state topic have to be among the topics; `ends` are those of the input's partitions.
        """
        names = (self._settings.input_topic, self._settings.state_topic)
        partitions = {name: topics[name].partitions for name in names}
        finding = group_checks.find(self._admin.client, self._settings, partitions, ends)
        group = await self._admin.call(finding, "looking at the consumer group")
        return group_checks.checks(self._settings, group)

    async def verify(self) -> int:
        """The input topic's partition count. Raises ConfigurationError with everything that is missing or wrong."""
        refuse(await self.permissions())
        topics = await self.find()
        refuse(checks(self._settings, topics))
        return topics[self._settings.input_topic].partitions

    async def create(self, partitions: int, replication_factor: int) -> list[str]:
        """Create those of the four topics that do not exist, and wait until brokers know them; returns their names.

        If the input topic exists, it decides the number of partitions. A topic that is created by another client
        meanwhile is left as it is. Raises ConfigurationError with every topic that the broker refused.
        """
        topics = await self.find()
        missing = [plan for plan in self._plans if plan.name not in topics]
        if not missing:
            return []
        source = topics.get(self._settings.input_topic)
        count = partitions if source is None else source.partitions
        codes = await self._admin.create_topics(
            [NewTopic(plan.name, count, replication_factor, topic_configs=plan.configs) for plan in missing]
        )
        errors = [
            _map_create_error(name, for_code(code)()) for name, code in codes.items() if code not in _CREATED_CODES
        ]
        if errors:
            is_final = any(isinstance(error, ConfigurationError) for error in errors)
            raise (ConfigurationError if is_final else RetriableError)("\n".join(map(str, errors)))
        waiting = self._wait_until_visible({plan.name for plan in missing})
        await self._admin.call(waiting, "waiting for the new topics")
        return [plan.name for plan in missing if codes.get(plan.name) == 0]

    async def _wait_until_visible(self, names: set[str]) -> None:
        """Wait until the brokers know topics that the controller has created. The caller bounds it."""
        while True:
            try:
                if names <= (await self.find()).keys():
                    return
            except RetriableError:
                pass  # a partition has no leader yet
            await asyncio.sleep(_VISIBLE_POLL_S)


def _map_create_error(name: str, error: KafkaError) -> ExternalError:
    kind = type(error).__name__
    if isinstance(error, InvalidReplicationFactorError):
        return ConfigurationError(
            f"topic {name!r}: fewer brokers than --replication-factor ({kind}): lower it, or add brokers"
        )
    if isinstance(error, TopicAuthorizationFailedError | ClusterAuthorizationFailedError):
        return ConfigurationError(f"topic {name!r}: grant {USER} Create on the topic or the cluster ({kind})")
    if isinstance(error, _NOT_ALLOWED):
        return ConfigurationError(
            f"topic {name!r}: the broker does not allow it like this ({kind}): ask who runs the cluster"
        )
    return map_error(error, f"creating topic {name!r}")
