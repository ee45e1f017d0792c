"""What a worker that joins the consumer group now will meet: other members, committed offsets, records to read."""

import asyncio
import time
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import for_code
from msgspec import Struct

from consumer.kafka import coordinator
from consumer.kafka.newer_groups import find_newer_members
from consumer.kafka.offsets import find_begins, find_ends, retry
from consumer.kafka.protocol import AuthorizedGroupsRequest
from consumer.kafka.records import OffsetRange
from consumer.kafka_commands import rewind_command
from consumer.preflight.check_result import CheckResult
from consumer.preflight.topic_checks import TopicFound, plans
from consumer.settings import Settings
from consumer.worker.standstill import LogEnd, describe_undecided

_PROTOCOL_TYPE = "consumer"
_ASSIGNOR = "roundrobin"
_SHOWN_MAX = 5
_OTHER_GROUP = "choose another CC_GROUP_ID, or stop its members"


class Member(Struct, frozen=True):
    """One member of the group."""

    host: str
    instance_id: str = ""
    """Empty for a dynamic member."""
    topics: tuple[str, ...] = ()


class GroupFound(Struct, frozen=True):
    """The group, and the partitions that its members restore from and read."""

    state: str = "Empty"
    protocol_type: str = ""
    assignor: str = ""
    members: tuple[Member, ...] = ()
    newer_members: tuple[str, ...] = ()
    """The hosts of members that speak the newer protocol; `members` is empty then."""
    committed: Mapping[int, int] = {}
    """The next offset to read, by partition of the input topic."""
    input_spans: Mapping[int, OffsetRange] = {}
    """The offsets of the input topic, by partition, uncommitted ones included."""
    state_spans: Mapping[int, OffsetRange] = {}
    undecided: Mapping[int, LogEnd] = {}
    """The ends of those partitions of the input where records wait for the end of a transaction."""


def checks(settings: Settings, group: GroupFound) -> list[CheckResult]:
    """The results of all checks of the group."""
    topic = settings.input_topic
    return [
        _check_kind(settings.group_id, group),
        _check_subscriptions(topic, group),
        _check_count(topic, group),
        _check_static_id(settings.group_instance_id, group),
        _check_offsets(settings, group),
        _check_lag(topic, group),
        *_check_undecided(settings, group.undecided),
        _check_state_size(settings.state_topic, group.state_spans),
    ]


def _check_kind(group_id: str, group: GroupFound) -> CheckResult:
    name = f"group {group_id!r} (CC_GROUP_ID)"
    if group.protocol_type not in {"", _PROTOCOL_TYPE}:
        message = f"{name} is used for something else than consumers: {group.protocol_type!r}"
        return CheckResult("group", "fail", message, _OTHER_GROUP)
    if group.newer_members:
        message = (
            f"{name} has members that speak the newer protocol (group.protocol=consumer), at "
            f"{_list_some(sorted(set(group.newer_members)))}: no workers, but partitions are assigned to them"
        )
        return CheckResult("group", "fail", message, _OTHER_GROUP)
    if group.members and group.assignor not in {"", _ASSIGNOR}:
        message = f"{name} has members that share partitions by {group.assignor!r}, not by {_ASSIGNOR!r}"
        return CheckResult("group", "fail", message, _OTHER_GROUP)
    return CheckResult("group", "pass", f"{name} is {group.state or 'new'}")


def _check_subscriptions(input_topic: str, group: GroupFound) -> CheckResult:
    others = sorted({topic for member in group.members for topic in member.topics} - {input_topic})
    if not others:
        return CheckResult("group", "pass", f"no member of the group reads anything but {input_topic!r}")
    message = f"members of the group also read {_list_some(others)}"
    return CheckResult("group", "warn", message, "give each service a CC_GROUP_ID of its own")


def _check_count(input_topic: str, group: GroupFound) -> CheckResult:
    members, partitions = len(group.members), len(group.input_spans)
    message = f"{members} members for {partitions} partitions of {input_topic!r}"
    if members > partitions:
        return CheckResult("members", "warn", message, f"{members - partitions} have nothing to do: run fewer workers")
    return CheckResult("members", "pass", message)


def _check_static_id(instance_id: str, group: GroupFound) -> CheckResult:
    """A worker that restarts replaces the member with its id, so such a member is no failure by itself."""
    if not instance_id:
        return CheckResult("membership", "pass", "dynamic: CC_GROUP_INSTANCE_ID is not set")
    hosts = [member.host for member in group.members if member.instance_id == instance_id]
    if hosts:
        return CheckResult(
            "membership",
            "warn",
            f"a member at {_list_some(hosts)} has the id {instance_id!r} (CC_GROUP_INSTANCE_ID)",
            "fine if it is this worker or the one that it replaces; else give each worker an id of its own, since two "
            "members with the same id fence each other",
        )
    return CheckResult("membership", "pass", f"static: no member has the id {instance_id!r} (CC_GROUP_INSTANCE_ID) yet")


def _check_offsets(settings: Settings, group: GroupFound) -> CheckResult:
    input_topic = settings.input_topic
    orphaned = sorted(number for number, span in group.state_spans.items() if span.end > span.begin)
    orphaned = [number for number in orphaned if number not in group.committed]
    if orphaned and settings.delivery == "exactly_once":
        return CheckResult(
            "offsets",
            "warn",
            f"no offset is committed in partitions {_list_some(list(map(str, orphaned)))}, but the state topic "
            f"{settings.state_topic!r} (CC_STATE_TOPIC) is not empty there: if it holds conversations, `run` does not "
            f"read these partitions, for both are committed together",
            f"see that CC_GROUP_ID is right; if the offsets are gone, as with an input topic that was deleted and "
            f"created again, {rewind_command(settings)} has the input read from its beginning over that state",
        )
    if not group.committed:
        return CheckResult("offsets", "pass", "nothing is committed yet: each partition is read from its first record")
    outside = [
        f"partition {partition} at {offset}, which holds {span.begin} to {span.end}"
        for partition, offset in sorted(group.committed.items())
        for span in [group.input_spans.get(partition)]
        if span is not None and not span.begin <= offset <= span.end
    ]
    if not outside:
        return CheckResult(
            "offsets", "pass", f"committed in {len(group.committed)} partitions, all within what they hold"
        )
    return CheckResult(
        "offsets",
        "warn",
        f"committed offsets that {input_topic!r} does not hold: {_list_some(outside)}",
        "these partitions are read from their first record; if the topic was not deleted and created again, retention "
        "has deleted records before a worker read them: raise retention.ms",
    )


def _check_lag(input_topic: str, group: GroupFound) -> CheckResult:
    lag = 0
    for partition, span in group.input_spans.items():
        offset = group.committed.get(partition, span.begin)
        lag += span.end - offset if span.begin <= offset <= span.end else span.end - span.begin
    message = f"{lag} offsets to read of {_count(group.input_spans)} that {input_topic!r} (CC_INPUT_TOPIC) holds"
    return CheckResult("lag", "pass", message)


def _check_undecided(settings: Settings, undecided: Mapping[int, LogEnd]) -> list[CheckResult]:
    now_ms = time.time_ns() // 1_000_000
    results = [
        CheckResult("lag", "warn", *describe_undecided(settings, partition, end, now_ms))
        for partition, end in sorted(undecided.items())
    ]
    return results[:_SHOWN_MAX]


def _check_state_size(state_topic: str, spans: Mapping[int, OffsetRange]) -> CheckResult:
    message = f"topic {state_topic!r} (CC_STATE_TOPIC) spans {_count(spans)} offsets to restore"
    return CheckResult("size", "pass", message)


def _count(spans: Mapping[int, OffsetRange]) -> int:
    return sum(span.end - span.begin for span in spans.values())


def _list_some(names: list[str]) -> str:
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def leaders(settings: Settings, ends: Mapping[int, LogEnd | str]) -> CheckResult:
    """Whether each partition of the input has a leader that answers; `ends` as of `find_log_ends`."""
    unknown = [f"partition {number}: {end}" for number, end in sorted(ends.items()) if isinstance(end, str)]
    topic = f"{settings.input_topic!r} (CC_INPUT_TOPIC)"
    if unknown:
        remedy = "see that these brokers run and that this host can reach them; the other partitions go on"
        return CheckResult("leaders", "warn", f"{topic}: {_list_some(unknown)}", remedy)
    return CheckResult("leaders", "pass", f"each partition of {topic} has a leader that answers")


def output_leaders(settings: Settings, topics: Mapping[str, TopicFound]) -> list[CheckResult]:
    """A warning for each output with partitions that no broker leads: their lanes cannot commit."""
    remedy = "see that the brokers with their replicas run; the other partitions go on"
    return [
        CheckResult(
            "leaders", "warn",
            f"{plan.name!r} ({plan.setting}): no broker leads the partitions {_list_some(list(map(str, leaderless)))}",
            remedy,
        )
        for plan in plans(settings)
        if plan.name != settings.input_topic and plan.name in topics
        if (leaderless := topics[plan.name].leaderless)
    ]  # fmt: skip


async def find(
    client: AIOKafkaClient, settings: Settings, partitions: Mapping[str, int], ends: Mapping[int, LogEnd | str]
) -> GroupFound:
    """Describe the group, given the partition counts of the input and the state topic, and the ends of the input.

    Raises KafkaError; waits while the cluster is starting or a leader moves: the caller bounds it.
    """
    state, protocol_type, assignor, members = await _describe(client, settings.group_id)
    newer_members = () if members else await find_newer_members(client, settings.group_id)
    numbers = range(partitions[settings.input_topic])
    committed = await coordinator.find_committed(client, settings.group_id, settings.input_topic, numbers)
    offsets = {number: offset.next_offset for number, offset in committed.items() if offset is not None}
    undecided = {number: end for number, end in ends.items() if isinstance(end, LogEnd) and end.undecided}
    inputs, states = settings.input_topic, settings.state_topic
    input_spans = await _find_spans(client, inputs, partitions[inputs])
    state_spans = await _find_spans(client, states, partitions[states])
    return GroupFound(
        state, protocol_type, assignor, members, newer_members, offsets, input_spans, state_spans, undecided
    )


async def _describe(client: AIOKafkaClient, group_id: str) -> tuple[str, str, str, tuple[Member, ...]]:
    """The state, protocol type, assignor and members of a group."""
    try:
        description = await coordinator.Group(client, group_id).ask(AuthorizedGroupsRequest([group_id]))
    except NotImplementedError:  # the broker does not speak this version
        return "not reported by the broker", "", "", ()
    error_code, _, state, protocol_type, assignor, members, _ = description.groups[0]
    if error_code:
        raise for_code(error_code)
    described = tuple(
        Member(host.removeprefix("/"), instance_id or "", _parse_topics(protocol_type, metadata))
        for _, instance_id, _, host, metadata, _ in members
    )
    return "new" if state == "Dead" else state, protocol_type, assignor, described


def _parse_topics(protocol_type: str, metadata: bytes) -> tuple[str, ...]:
    """The topics that a member subscribes to; none while it is joining."""
    if protocol_type != _PROTOCOL_TYPE or not metadata:
        return ()
    return tuple(ConsumerProtocolMemberMetadata.decode(metadata).subscription)


async def _find_spans(client: AIOKafkaClient, topic: str, partitions: int) -> dict[int, OffsetRange]:
    """The offsets of each partition, uncommitted ones included."""
    tps = [TopicPartition(topic, number) for number in range(partitions)]
    begins, ends = await asyncio.gather(
        retry(client, lambda: find_begins(client, tps)), retry(client, lambda: find_ends(client, tps))
    )
    return {tp.partition: OffsetRange(begins[tp], ends[tp]) for tp in tps}
