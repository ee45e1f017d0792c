"""The four topics: what they have to be like, making them when asked to, and saying what does not fit.

Nothing is ever created silently: `create` is only called by the command `topics --create`.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code
from msgspec import Struct

from consumer.adapters.kafka_connection import connection_arguments, world_error
from consumer.runtime.ports import Misfit, Unreachable
from consumer.runtime.settings import Settings

_BATCH_SLACK_BYTES = 65_536
_CONFIGS_READ = ("cleanup.policy", "max.message.bytes", "message.timestamp.after.max.ms")
_HOUR_MS = 3_600_000


class TopicPlan(Struct, frozen=True):
    """What one topic has to be like."""

    name: str
    setting: str
    """The setting that names it."""
    same_partitions: bool
    """Whether it needs as many partitions as the input: outputs go to the partition their input came from."""
    configs: dict[str, str]


class TopicFound(Struct, frozen=True):
    """What one topic is like on the broker."""

    partitions: int
    configs: dict[str, str]


def plans(settings: Settings) -> list[TopicPlan]:
    """The input topic, then the three output topics."""
    batch = str(settings.batch_bytes_max + _BATCH_SLACK_BYTES)
    return [
        TopicPlan(settings.input_topic, "CC_INPUT_TOPIC", same_partitions=True, configs={}),
        TopicPlan(
            settings.state_topic,
            "CC_STATE_TOPIC",
            same_partitions=True,
            configs={"cleanup.policy": "compact", "max.message.bytes": batch},
        ),
        TopicPlan(
            settings.transitions_topic,
            "CC_TRANSITIONS_TOPIC",
            same_partitions=True,
            configs={"cleanup.policy": "delete", "max.message.bytes": batch},
        ),
        TopicPlan(
            settings.dead_letters_topic,
            "CC_DEAD_LETTERS_TOPIC",
            same_partitions=True,
            configs={"cleanup.policy": "delete", "max.message.bytes": batch},
        ),
    ]


def misfits(settings: Settings, found: dict[str, TopicFound]) -> list[str]:
    """What does not fit, a sentence each that says what to do; empty if all does."""
    problems: list[str] = []
    source = found.get(settings.input_topic)
    for plan in plans(settings):
        topic = found.get(plan.name)
        if topic is None:
            problems.append(
                f"topic {plan.name!r} ({plan.setting}) does not exist: create it, or run `conversation-consumer topics "
                f"--create --partitions N`"
            )
            continue
        if source is not None and plan.same_partitions and topic.partitions != source.partitions:
            problems.append(
                f"topic {plan.name!r} has {topic.partitions} partitions but {settings.input_topic!r} has "
                f"{source.partitions}: they must be equal, since outputs keep the partition of their input"
            )
        for name, wanted in plan.configs.items():
            problem = _config_misfit(plan, name, wanted, topic.configs.get(name), settings)
            if problem:
                problems.append(problem)
    return problems


def warnings(settings: Settings, found: dict[str, TopicFound]) -> list[str]:
    """What fits but should be looked at."""
    source = found.get(settings.input_topic)
    if source is None:
        return []
    after_ms = source.configs.get("message.timestamp.after.max.ms", "")
    if after_ms.isdecimal() and int(after_ms) > _HOUR_MS:
        return [
            f"topic {settings.input_topic!r} accepts timestamps more than an hour in the future: set "
            f"message.timestamp.after.max.ms={_HOUR_MS} on it, since evictions follow the timestamps of records"
        ]
    return []


def _config_misfit(plan: TopicPlan, name: str, wanted: str, value: str | None, settings: Settings) -> str | None:
    if value is None:
        return None
    remedy = f"kafka-configs --alter --entity-type topics --entity-name {plan.name} --add-config {name}={wanted}"
    if name == "max.message.bytes":
        if int(value) >= settings.batch_bytes_max:
            return None
        return (
            f"topic {plan.name!r} has max.message.bytes={value}, below CC_BATCH_BYTES_MAX={settings.batch_bytes_max}: "
            f"lower the setting, or `{remedy}`"
        )
    return None if value == wanted else f"topic {plan.name!r} has {name}={value}, it has to be {wanted}: `{remedy}`"


class TopicAdmin:
    """The broker's topics, as an async context manager. Raises WorldError from every method."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._client = AIOKafkaAdminClient(**connection_arguments(settings))

    async def __aenter__(self) -> "TopicAdmin":
        try:
            await self._bounded(self._client.start(), f"connecting to {self._settings.bootstrap_servers}")
        except Unreachable as error:
            await self._client.close()
            raise Unreachable(f"{error}: is CC_BOOTSTRAP_SERVERS right, and does the broker run?") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def find(self) -> dict[str, TopicFound]:
        """Those of the four topics that exist."""
        existing = set(await self._bounded(self._client.list_topics(), "listing topics"))
        names = [plan.name for plan in plans(self._settings) if plan.name in existing]
        if not names:
            return {}
        described = await self._bounded(self._client.describe_topics(names), "describing topics")
        partitions = {each["topic"]: len(each["partitions"]) for each in described}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        answers = await self._bounded(self._client.describe_configs(resources), "describing the topics' settings")
        configs: dict[str, dict[str, str]] = {}
        for answer in answers:
            for error_code, _, _, name, entries in answer.resources:
                if error_code:
                    raise world_error(for_code(error_code)(), f"describing the settings of topic {name!r}")
                configs[name] = {entry[0]: entry[1] for entry in entries if entry[0] in _CONFIGS_READ}
        return {name: TopicFound(partitions[name], configs.get(name, {})) for name in names}

    async def verify(self) -> int:
        """The input topic's partition count. Raises Misfit with everything that does not fit."""
        found = await self.find()
        problems = misfits(self._settings, found)
        if problems:
            raise Misfit("\n".join(problems))
        return found[self._settings.input_topic].partitions

    async def create(self, partitions: int, replication_factor: int) -> list[str]:
        """Create those of the four topics that do not exist; returns their names."""
        found = await self.find()
        missing = [plan for plan in plans(self._settings) if plan.name not in found]
        if not missing:
            return []
        source = found.get(self._settings.input_topic)
        count = partitions if source is None else source.partitions
        new = [NewTopic(plan.name, count, replication_factor, topic_configs=plan.configs) for plan in missing]
        answer = await self._bounded(self._client.create_topics(new), "creating topics")
        for name, error_code, *_ in answer.topic_errors:
            if error_code:
                raise Misfit(f"topic {name!r} could not be created: {for_code(error_code).__name__}")
        return [plan.name for plan in missing]

    async def _bounded(self, doing: Awaitable[Any], what: str) -> Any:
        try:
            return await asyncio.wait_for(doing, self._timeout_s)
        except (KafkaError, TimeoutError, OSError) as error:
            raise world_error(error, what) from error
