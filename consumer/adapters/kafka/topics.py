"""The four topics: what they have to be like, making them when asked to, and saying what does not fit.

Nothing is ever created silently: `create` is only called by the command `topics --create`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
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
from msgspec import Struct

from consumer.adapters.kafka import group_checks, limits, permissions
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.connection import connection_arguments, start, unconnected
from consumer.adapters.kafka.faults import USER, world_error
from consumer.adapters.kafka.finding import Finding, refuse
from consumer.adapters.kafka.permissions import TOPIC, Grant
from consumer.runtime.kafka_tools import kafka_command
from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings

_BATCH_SLACK_BYTES = 65_536
_CONFIGS_READ = (
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
)
_NOT_ALLOWED = (PolicyViolationError, InvalidConfigurationError, InvalidPartitionsError, InvalidRequestError)
_FINE_CODES = (0, TopicAlreadyExistsError.errno)
_CLOSE_S = 5.0
_VISIBLE_POLL_S = 0.05
_ASKING = "asking what the user may do"
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class TopicPlan(Struct, frozen=True):
    """What one topic has to be like."""

    name: str
    setting: str
    """The setting that names it."""
    more_partitions: bool
    """Whether it may have more partitions than the input. None may have fewer: outputs go to their input's number."""
    configs: dict[str, str]
    bytes_setting: str = ""
    """The setting that decides how large a batch the topic has to take."""
    bytes_min: int = 0


class TopicFound(Struct, frozen=True):
    """What one topic is like on the broker."""

    partitions: int
    replicas: int
    """Of the partition that has the fewest."""
    configs: dict[str, str]


def plans(settings: Settings) -> list[TopicPlan]:
    """The input topic, then the three output topics."""

    def output(name: str, setting: str, policy: str, bytes_setting: str, bytes_min: int) -> TopicPlan:
        configs = {"cleanup.policy": policy, "max.message.bytes": str(bytes_min + _BATCH_SLACK_BYTES)}
        more_partitions = name == settings.dead_letters_topic
        return TopicPlan(name, setting, more_partitions, configs, bytes_setting, bytes_min)

    batch = ("CC_BATCH_BYTES_MAX", settings.batch_bytes_max)
    letter = ("CC_DEAD_LETTER_BYTES_MAX", settings.dead_letter_bytes_max)
    return [
        TopicPlan(settings.input_topic, "CC_INPUT_TOPIC", more_partitions=False, configs={}),
        output(settings.state_topic, "CC_STATE_TOPIC", "compact", *batch),
        output(settings.transitions_topic, "CC_TRANSITIONS_TOPIC", "delete", *batch),
        output(settings.dead_letters_topic, "CC_DEAD_LETTERS_TOPIC", "delete", *letter),
    ]


def checks(settings: Settings, found: dict[str, TopicFound]) -> list[Finding]:
    """What each check of the topics finds."""
    source = found.get(settings.input_topic)
    findings = [] if source is None else [_keying(settings, source)]
    for plan in plans(settings):
        topic = found.get(plan.name)
        if topic is None:
            findings.append(_missing(plan))
            continue
        if source is not None:
            findings.append(_partitions(settings, plan, topic.partitions, source.partitions))
        findings.append(_replicas(settings, plan, topic))
        findings.extend(
            _config(settings, plan, name, wanted, topic.configs[name])
            for name, wanted in plan.configs.items()
            if name in topic.configs
        )
    if source is not None:
        findings.append(_timestamps(settings, source))
        findings.append(_retention(settings, source))
    return [*findings, *_copies(found)]


def _keying(settings: Settings, source: TopicFound) -> Finding:
    if settings.key_mismatch != "apply" or source.partitions == 1:
        return Finding("keys", "pass", f"CC_KEY_MISMATCH={settings.key_mismatch} with {source.partitions} partitions")
    return Finding(
        "keys",
        "fail",
        f"CC_KEY_MISMATCH=apply needs one partition, but {settings.input_topic!r} (CC_INPUT_TOPIC) has "
        f"{source.partitions}: records of a conversation with several keys would be in several partitions, each "
        f"with a state of its own",
        "set it to dead_letter, and key the topic by conversation id",
    )


def _missing(plan: TopicPlan) -> Finding:
    return Finding(
        "topic",
        "fail",
        f"topic {plan.name!r} ({plan.setting}) does not exist",
        "check the setting, or run `conversation-consumer topics --create --partitions N --replication-factor N`",
    )


def _partitions(settings: Settings, plan: TopicPlan, count: int, source_count: int) -> Finding:
    if count == source_count or (plan.more_partitions and count > source_count):
        return Finding("partitions", "pass", f"topic {plan.name!r} has {count} partitions")
    wanted = "at least as many" if plan.more_partitions else "equal"
    what = (
        f"topic {plan.name!r} has {count} partitions but {settings.input_topic!r} has {source_count}: they must be "
        f"{wanted}, since outputs keep the partition of their input"
    )
    if count > source_count:
        remedy = f"name another topic in {plan.setting}, since partitions cannot be taken away"
        return Finding("partitions", "fail", what, remedy)
    remedy = kafka_command(settings, "kafka-topics", f"--alter --topic {plan.name} --partitions {source_count}")
    if plan.setting == "CC_STATE_TOPIC":
        remedy += (
            ", if the service never ran; else the input has grown and its keys have moved: copy it with "
            "`conversation-consumer rekey` into a new topic, and read that with new output topics and a new CC_GROUP_ID"
        )
    return Finding("partitions", "fail", what, remedy)


def _replicas(settings: Settings, plan: TopicPlan, topic: TopicFound) -> Finding:
    insync = _insync(topic)
    if insync > topic.replicas:
        return Finding(
            "replicas",
            "fail",
            f"topic {plan.name!r} has min.insync.replicas={insync} but {topic.replicas} replicas, so that "
            f"nothing can be written to it",
            _alter(settings, plan.name, "min.insync.replicas", str(topic.replicas)),
        )
    if plan.name != settings.input_topic and topic.replicas > 2 and insync == 1:  # noqa: PLR2004 - 2 of 2 would stop at one loss
        return Finding(
            "replicas",
            "warn",
            f"topic {plan.name!r} has {topic.replicas} replicas but min.insync.replicas=1, so that one copy counts as "
            f"safe",
            _alter(settings, plan.name, "min.insync.replicas", "2"),
        )
    return Finding("replicas", "pass", f"topic {plan.name!r} has min.insync.replicas={insync} of {topic.replicas}")


def _config(settings: Settings, plan: TopicPlan, name: str, wanted: str, value: str) -> Finding:
    what = f"topic {plan.name!r} has {name}={value}"
    remedy = _alter(settings, plan.name, name, wanted)
    if name == "max.message.bytes":
        if int(value) >= plan.bytes_min:
            return Finding("batches", "pass", what)
        below = f"{what}, below {plan.bytes_setting}={plan.bytes_min}"
        return Finding("batches", "fail", below, f"lower the setting, or {remedy}")
    if value == wanted:
        return Finding("cleanup", "pass", what)
    return Finding("cleanup", "fail", f"{what}, it has to be {wanted}", remedy)


def _timestamps(settings: Settings, source: TopicFound) -> Finding:
    """A record's timestamp is the time of its snapshot, and moves the time by which conversations are evicted."""
    kind = source.configs.get("message.timestamp.type", "CreateTime")
    what = f"topic {settings.input_topic!r} has message.timestamp.type={kind}"
    if kind == "LogAppendTime":
        return Finding("timestamps", "pass", f"{what}: times are those of arrival at the broker")
    after_ms = source.configs.get("message.timestamp.after.max.ms", "")
    if after_ms.isdecimal() and int(after_ms) > _HOUR_MS:
        return Finding(
            "timestamps",
            "warn",
            f"topic {settings.input_topic!r} accepts timestamps more than an hour in the future, and evictions "
            f"follow the timestamps of records",
            _alter(settings, settings.input_topic, "message.timestamp.after.max.ms", str(_HOUR_MS)),
        )
    return Finding("timestamps", "pass", f"{what}, message.timestamp.after.max.ms={after_ms or 'not told'}")


def _retention(settings: Settings, source: TopicFound) -> Finding:
    """How long workers may stand still, and how far back the state can be made anew."""
    text, size = source.configs.get("retention.ms", ""), source.configs.get("retention.bytes", "-1")
    bounded = f" and at most {size} bytes of a partition" if size.isdecimal() else ""
    if not text.isdecimal():
        kept = "for ever" if text == "-1" else "for a time that the broker does not tell"
        return Finding("retention", "pass", f"topic {settings.input_topic!r} keeps records {kept}{bounded}")
    milliseconds = int(text)
    days = f"{milliseconds / _DAY_MS:.3g} days"
    what = f"topic {settings.input_topic!r} has retention.ms={text}: it keeps records for {days}{bounded}"
    ended_ms = settings.retention_ended_s * 1_000
    if milliseconds >= ended_ms:
        return Finding("retention", "pass", what)
    return Finding(
        "retention",
        "warn",
        f"{what}, shorter than CC_RETENTION_ENDED_S={settings.retention_ended_s}, and what is deleted before a worker "
        f"reads it is lost",
        _alter(settings, settings.input_topic, "retention.ms", str(ended_ms)),
    )


def _copies(found: dict[str, TopicFound]) -> list[Finding]:
    lonely = [name for name, topic in found.items() if topic.replicas == 1]
    if not lonely:
        return []
    what = f"{', '.join(map(repr, lonely))}: one replica, so that a lost disk loses data; fine for trying out"
    return [Finding("replicas", "warn", what, "make them with --replication-factor 3 where data must not be lost")]


def _insync(topic: TopicFound) -> int:
    text = topic.configs.get("min.insync.replicas", "")
    return int(text) if text.isdecimal() else 1


def _alter(settings: Settings, topic: str, name: str, value: str) -> str:
    arguments = f"--alter --entity-type topics --entity-name {topic} --add-config {name}={value}"
    return kafka_command(settings, "kafka-configs", arguments)


class TopicAdmin:
    """The broker's topics, as an async context manager. Raises WorldError from every method."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_ms / 1_000
        self._client = AIOKafkaAdminClient(**connection_arguments(settings))

    async def __aenter__(self) -> Self:
        await start(self._client.start(), self._settings, self._timeout_s, self._close)
        return self

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
                    entry[0]: entry[1] for entry in entries if entry[0] in _CONFIGS_READ and entry[1] is not None
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
        node = next(iter(self._client._client.cluster.brokers())).nodeId  # noqa: SLF001 - as above
        resource = ConfigResource(ConfigResourceType.BROKER, str(node), dict.fromkeys(limits.READ))
        answers = await self._bounded(self._client.describe_configs([resource]), "describing a broker's settings")
        told = {
            entry[0]: entry[1]
            for answer in answers
            for error_code, _, _, _, entries in answer.resources
            if not error_code
            for entry in entries
            if entry[1] is not None
        }
        return limits.checks(self._settings, told)

    async def group(self, found: dict[str, TopicFound]) -> list[Finding]:
        """What a worker that joins the group now will meet. Input and state topic have to be among those found."""
        partitions = {name: found[name].partitions for name in (self._settings.input_topic, self._settings.state_topic)}
        asked = group_checks.find(self._client._client, self._settings, partitions)  # noqa: SLF001 - as above
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
