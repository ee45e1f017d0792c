"""What the four topics have to be like, and what does not match. Pure."""

from msgspec import Struct

from consumer.kafka_commands import kafka_command
from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings

_BATCH_SLACK_BYTES = 65_536
CONFIGS_READ = (
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
)
"""The settings of a topic that the checks read."""
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class TopicPlan(Struct, frozen=True):
    """What one topic has to be like."""

    name: str
    setting: str
    """The setting that names it."""
    more_partitions: bool
    """Whether it may have more partitions than the input. It may not have fewer: outputs keep the partition number."""
    configs: dict[str, str]
    bytes_setting: str = ""
    """The setting that decides how large a batch the topic has to accept."""
    bytes_min: int = 0


class TopicFound(Struct, frozen=True):
    """What one topic is like on the broker."""

    partitions: int
    replicas: int
    """Of the partition that has the fewest."""
    configs: dict[str, str]
    leaderless: tuple[int, ...] = ()
    """The partitions that no broker leads."""


def plans(settings: Settings) -> list[TopicPlan]:
    """The input topic, then the three output topics."""

    def output(name: str, setting: str, policy: str, bytes_setting: str, bytes_min: int) -> TopicPlan:
        configs = {"cleanup.policy": policy, "max.message.bytes": str(bytes_min + _BATCH_SLACK_BYTES)}
        more_partitions = name == settings.dead_letters_topic
        return TopicPlan(name, setting, more_partitions, configs, bytes_setting, bytes_min)

    batch = ("CC_BATCH_BYTES_MAX", settings.batch_bytes_max)
    letter = ("CC_DEAD_LETTER_BYTES_MAX", settings.dead_letter_bytes_max)
    return [
        TopicPlan(settings.input_topic, "CC_INPUT_TOPIC", more_partitions=False, configs={"cleanup.policy": "delete"}),
        output(settings.state_topic, "CC_STATE_TOPIC", "compact", *batch),
        output(settings.transitions_topic, "CC_TRANSITIONS_TOPIC", "delete", *batch),
        output(settings.dead_letters_topic, "CC_DEAD_LETTERS_TOPIC", "delete", *letter),
    ]


def checks(settings: Settings, topics: dict[str, TopicFound]) -> list[CheckResult]:
    """The results of all checks of the topics, of which those that exist are given."""
    source = topics.get(settings.input_topic)
    results = []
    for plan in plans(settings):
        topic = topics.get(plan.name)
        if topic is None:
            results.append(_fail_missing(plan))
            continue
        if source is not None:
            results.append(_check_partitions(settings, plan, topic.partitions, source.partitions))
        results.append(_check_replicas(settings, plan, topic))
        results.extend(
            _check_config(settings, plan, name, wanted, topic.configs[name])
            for name, wanted in plan.configs.items()
            if name in topic.configs and topic is not source
        )
    if source is not None:
        results.append(compaction(settings, source))
        results.append(_check_timestamps(settings, source))
        results.append(_check_retention(settings, source))
    return [*results, *_check_copies(topics)]


def compaction(settings: Settings, source: TopicFound) -> CheckResult:
    """Whether the input keeps every record until it is old enough to be deleted. The outputs follow from all records.

    A compacted topic loses updates before they are read, and no error reports it, since no offset is out of range.
    """
    policy = source.configs.get("cleanup.policy", "(unknown)")
    message = f"topic {settings.input_topic!r} (CC_INPUT_TOPIC) has cleanup.policy={policy}"
    if "compact" not in policy:
        return CheckResult("cleanup", "pass", message)
    return CheckResult(
        "cleanup",
        "fail",
        f"{message}, it has to be delete: compaction removes updates that were not read yet, and those that `verify` "
        f"and a rebuild need",
        _alter_command(settings, settings.input_topic, "cleanup.policy", "delete"),
    )


def _fail_missing(plan: TopicPlan) -> CheckResult:
    return CheckResult(
        "topic",
        "fail",
        f"topic {plan.name!r} ({plan.setting}) does not exist",
        "check the setting, or run `conversation-consumer topics --create --partitions N --replication-factor N`",
    )


def _check_partitions(settings: Settings, plan: TopicPlan, count: int, source_count: int) -> CheckResult:
    if count == source_count or (plan.more_partitions and count > source_count):
        return CheckResult("partitions", "pass", f"topic {plan.name!r} has {count} partitions")
    wanted = "at least as many" if plan.more_partitions else "equal"
    message = (
        f"topic {plan.name!r} has {count} partitions but {settings.input_topic!r} has {source_count}: they must be "
        f"{wanted}, since outputs keep the partition of their input"
    )
    if count > source_count:
        remedy = f"name another topic in {plan.setting}, since partitions cannot be removed"
        return CheckResult("partitions", "fail", message, remedy)
    remedy = kafka_command(settings, "kafka-topics", f"--alter --topic {plan.name} --partitions {source_count}")
    if plan.setting == "CC_STATE_TOPIC":
        remedy += (
            ", if the service never ran; else the input has grown and its keys have moved: copy it with "
            "`conversation-consumer rekey` into a new topic, and read that with new output topics and a new CC_GROUP_ID"
        )
    return CheckResult("partitions", "fail", message, remedy)


def _check_replicas(settings: Settings, plan: TopicPlan, topic: TopicFound) -> CheckResult:
    insync = _parse_min_insync(topic)
    if insync > topic.replicas:
        return CheckResult(
            "replicas",
            "fail",
            f"topic {plan.name!r} has min.insync.replicas={insync} but {topic.replicas} replicas, so that "
            f"nothing can be written to it",
            _alter_command(settings, plan.name, "min.insync.replicas", str(topic.replicas)),
        )
    if plan.name != settings.input_topic and topic.replicas > 2 and insync == 1:  # noqa: PLR2004 - 2 of 2 would stop at one loss
        return CheckResult(
            "replicas",
            "warn",
            f"topic {plan.name!r} has {topic.replicas} replicas but min.insync.replicas=1, so that one copy counts as "
            f"safe",
            _alter_command(settings, plan.name, "min.insync.replicas", "2"),
        )
    return CheckResult("replicas", "pass", f"topic {plan.name!r} has min.insync.replicas={insync} of {topic.replicas}")


def _check_config(settings: Settings, plan: TopicPlan, name: str, wanted: str, value: str) -> CheckResult:
    message = f"topic {plan.name!r} has {name}={value}"
    remedy = _alter_command(settings, plan.name, name, wanted)
    if name == "max.message.bytes":
        if int(value) >= plan.bytes_min:
            return CheckResult("batches", "pass", message)
        below = f"{message}, below {plan.bytes_setting}={plan.bytes_min}"
        return CheckResult("batches", "fail", below, f"lower the setting, or {remedy}")
    if value == wanted:
        return CheckResult("cleanup", "pass", message)
    return CheckResult("cleanup", "fail", f"{message}, it has to be {wanted}", remedy)


def _check_timestamps(settings: Settings, source: TopicFound) -> CheckResult:
    """A record's timestamp is the time of its snapshot, and advances the stream time that evicts conversations."""
    kind = source.configs.get("message.timestamp.type", "CreateTime")
    message = f"topic {settings.input_topic!r} has message.timestamp.type={kind}"
    if kind == "LogAppendTime":
        return CheckResult("timestamps", "pass", f"{message}: times are those of arrival at the broker")
    after_ms = source.configs.get("message.timestamp.after.max.ms", "")
    if after_ms.isdecimal() and int(after_ms) > _HOUR_MS:
        return CheckResult(
            "timestamps",
            "warn",
            f"topic {settings.input_topic!r} accepts timestamps more than an hour in the future, and evictions "
            f"follow the timestamps of records",
            _alter_command(settings, settings.input_topic, "message.timestamp.after.max.ms", str(_HOUR_MS)),
        )
    return CheckResult("timestamps", "pass", f"{message}, message.timestamp.after.max.ms={after_ms or 'not reported'}")


def _check_retention(settings: Settings, source: TopicFound) -> CheckResult:
    """How long workers may be down without loss, and how far back the state can be rebuilt."""
    text, size = source.configs.get("retention.ms", ""), source.configs.get("retention.bytes", "-1")
    bounded = f" and at most {size} bytes of a partition" if size.isdecimal() else ""
    if not text.isdecimal():
        kept = "for ever" if text == "-1" else "for a time that the broker does not report"
        return CheckResult("retention", "pass", f"topic {settings.input_topic!r} keeps records {kept}{bounded}")
    milliseconds = int(text)
    days = f"{milliseconds / _DAY_MS:.3g} days"
    message = f"topic {settings.input_topic!r} has retention.ms={text}: it keeps records for {days}{bounded}"
    ended_ms = settings.retention_ended_s * 1_000
    if milliseconds >= ended_ms:
        return CheckResult("retention", "pass", message)
    return CheckResult(
        "retention",
        "warn",
        f"{message}, shorter than CC_RETENTION_ENDED_S={settings.retention_ended_s}: a record that is deleted before a "
        f"worker reads it is lost",
        _alter_command(settings, settings.input_topic, "retention.ms", str(ended_ms)),
    )


def _check_copies(topics: dict[str, TopicFound]) -> list[CheckResult]:
    single = [name for name, topic in topics.items() if topic.replicas == 1]
    if not single:
        return []
    message = f"{', '.join(map(repr, single))}: one replica, so that a lost disk loses data; fine for trying out"
    return [
        CheckResult("replicas", "warn", message, "create them with --replication-factor 3 where data must not be lost")
    ]


def _parse_min_insync(topic: TopicFound) -> int:
    text = topic.configs.get("min.insync.replicas", "")
    return int(text) if text.isdecimal() else 1


def _alter_command(settings: Settings, topic: str, name: str, value: str) -> str:
    arguments = f"--alter --entity-type topics --entity-name {topic} --add-config {name}={value}"
    return kafka_command(settings, "kafka-configs", arguments)
