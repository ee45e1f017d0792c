"""What the four topics have to be like, and what does not fit. Pure."""

from msgspec import Struct

from consumer.adapters.kafka.finding import Finding
from consumer.runtime.kafka_tools import kafka_command
from consumer.runtime.settings import Settings

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
"""The topic settings that the checks look at."""
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
        TopicPlan(settings.input_topic, "CC_INPUT_TOPIC", more_partitions=False, configs={"cleanup.policy": "delete"}),
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
            if name in topic.configs and topic is not source
        )
    if source is not None:
        findings.append(compaction(settings, source))
        findings.append(_timestamps(settings, source))
        findings.append(_retention(settings, source))
    return [*findings, *_copies(found)]


def compaction(settings: Settings, source: TopicFound) -> Finding:
    """Whether the input keeps every record until it is deleted by its age: what is published follows from all of them.

    A compacted topic loses unread updates, and no error shows it: no offset is out of range.
    """
    policy = source.configs.get("cleanup.policy", "(unknown)")
    what = f"topic {settings.input_topic!r} (CC_INPUT_TOPIC) has cleanup.policy={policy}"
    if "compact" not in policy:
        return Finding("cleanup", "pass", what)
    return Finding(
        "cleanup",
        "fail",
        f"{what}, it has to be delete: compaction takes away updates that were not read yet, and those that `verify` "
        f"and a rebuild need",
        _alter(settings, settings.input_topic, "cleanup.policy", "delete"),
    )


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
