"""What a worker that joins the consumer group now will meet: its members, its committed offsets, and what is to read.

Only groups of the classic protocol can be looked into; one of the newer protocol (KIP-848) looks as if it was
empty.
"""

import time
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import for_code
from msgspec import Struct

from consumer.adapters.kafka import coordinator, records
from consumer.adapters.kafka.finding import Finding
from consumer.adapters.kafka.records import Span
from consumer.adapters.kafka.requests import AuthorizedGroupsRequest
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import LogEnd, describe_undecided

_PROTOCOL_TYPE = "consumer"
_ASSIGNOR = "roundrobin"
_SHOWN_MAX = 5
_OTHER_GROUP = "choose another CC_GROUP_ID, or stop those who use it"


class Member(Struct, frozen=True):
    """One member of the group."""

    host: str
    instance_id: str = ""
    """Of a static member."""
    topics: tuple[str, ...] = ()


class GroupFound(Struct, frozen=True):
    """The group, and the partitions of the topics that its members restore from and read."""

    state: str = "Empty"
    protocol_type: str = ""
    assignor: str = ""
    members: tuple[Member, ...] = ()
    committed: Mapping[int, int] = {}
    """Offsets to go on from, by partition of the input topic."""
    input_spans: Mapping[int, Span] = {}
    """What was written, by partition."""
    state_spans: Mapping[int, Span] = {}
    undecided: Mapping[int, LogEnd] = {}
    """The ends of partitions of the input where records wait for the end of a transaction."""


def checks(settings: Settings, found: GroupFound) -> list[Finding]:
    """What each check of the group finds."""
    return [
        _kind(settings, found),
        _subscriptions(settings, found),
        _workers(settings, found),
        _static(settings, found),
        _positions(settings, found),
        _lag(settings, found),
        *_undecided(settings, found),
        _size(settings.state_topic, "CC_STATE_TOPIC", found.state_spans, "to restore"),
    ]


def _kind(settings: Settings, found: GroupFound) -> Finding:
    what = f"group {settings.group_id!r} (CC_GROUP_ID)"
    if found.protocol_type not in {"", _PROTOCOL_TYPE}:
        used = f"{what} is used for something else than consumers: {found.protocol_type!r}"
        return Finding("group", "fail", used, _OTHER_GROUP)
    if found.members and found.assignor not in {"", _ASSIGNOR}:
        used = f"{what} has members that share partitions by {found.assignor!r}, not by {_ASSIGNOR!r}"
        return Finding("group", "fail", used, _OTHER_GROUP)
    return Finding("group", "pass", f"{what} is {found.state or 'new'}")


def _subscriptions(settings: Settings, found: GroupFound) -> Finding:
    others = sorted({topic for each in found.members for topic in each.topics} - {settings.input_topic})
    if not others:
        return Finding("group", "pass", f"nobody in the group reads anything but {settings.input_topic!r}")
    read = f"members of the group also read {_listed(others)}"
    return Finding("group", "warn", read, "give each service a CC_GROUP_ID of its own")


def _workers(settings: Settings, found: GroupFound) -> Finding:
    members, partitions = len(found.members), len(found.input_spans)
    what = f"{members} members for {partitions} partitions of {settings.input_topic!r}"
    if members > partitions:
        return Finding("members", "warn", what, f"{members - partitions} have nothing to do: run fewer workers")
    return Finding("members", "pass", what)


def _static(settings: Settings, found: GroupFound) -> Finding:
    """A worker that comes back takes its place over, so a live member with its id is no failure by itself."""
    own = settings.group_instance_id
    if not own:
        return Finding("membership", "pass", "dynamic: CC_GROUP_INSTANCE_ID is not set")
    holders = [each.host for each in found.members if each.instance_id == own]
    if holders:
        return Finding(
            "membership",
            "warn",
            f"a member at {_listed(holders)} has the id {own!r} (CC_GROUP_INSTANCE_ID)",
            "fine if it is this worker or the one that it replaces; else give each worker an id of its own, since two "
            "with the same id put each other out",
        )
    return Finding("membership", "pass", f"static: nobody else has the id {own!r} (CC_GROUP_INSTANCE_ID)")


def _positions(settings: Settings, found: GroupFound) -> Finding:
    if not found.committed:
        return Finding("offsets", "pass", "nothing is committed yet: each partition is read from its first record")
    gone = [
        f"partition {partition} at {offset}, which holds {held.begin} to {held.end}"
        for partition, offset in sorted(found.committed.items())
        for held in [found.input_spans.get(partition)]
        if held is not None and not held.begin <= offset <= held.end
    ]
    if not gone:
        return Finding("offsets", "pass", f"committed in {len(found.committed)} partitions, all within what they hold")
    return Finding(
        "offsets",
        "warn",
        f"committed offsets that {settings.input_topic!r} does not hold: {_listed(gone)}",
        "these partitions are read from their first record on; if the topic was not made anew, its retention was "
        "faster than the workers: raise retention.ms",
    )


def _lag(settings: Settings, found: GroupFound) -> Finding:
    lag = 0
    for partition, held in found.input_spans.items():
        offset = found.committed.get(partition, held.begin)
        lag += held.end - offset if held.begin <= offset <= held.end else held.end - held.begin
    held_records = sum(each.end - each.begin for each in found.input_spans.values())
    what = f"{lag} offsets to read of {held_records} that {settings.input_topic!r} (CC_INPUT_TOPIC) holds"
    return Finding("lag", "pass", what)


def _undecided(settings: Settings, found: GroupFound) -> list[Finding]:
    now_ms = time.time_ns() // 1_000_000
    findings = [
        Finding("lag", "warn", *describe_undecided(settings, partition, end, now_ms))
        for partition, end in sorted(found.undecided.items())
    ]
    return findings[:_SHOWN_MAX]


def _size(topic: str, setting: str, spans: Mapping[int, Span], purpose: str) -> Finding:
    offsets = sum(each.end - each.begin for each in spans.values())
    return Finding("size", "pass", f"topic {topic!r} ({setting}) spans {offsets} offsets {purpose}")


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def leaders(settings: Settings, ends: Mapping[int, LogEnd | str]) -> Finding:
    """Whether each partition of the input has a leader that answers."""
    unknown = [f"partition {number}: {end}" for number, end in sorted(ends.items()) if isinstance(end, str)]
    topic = f"{settings.input_topic!r} (CC_INPUT_TOPIC)"
    if unknown:
        remedy = "see that these brokers run and that this host can reach them; the other partitions go on"
        return Finding("leaders", "warn", f"{topic}: {_listed(unknown)}", remedy)
    return Finding("leaders", "pass", f"each partition of {topic} has a leader that answers")


async def find(
    client: AIOKafkaClient, settings: Settings, partitions: Mapping[str, int], ends: Mapping[int, LogEnd | str]
) -> GroupFound:
    """What can be learned of the group, given how many partitions the topics have, and where those of the input end.

    Raises KafkaError; may wait for as long as the cluster is starting.
    """
    state, protocol_type, assignor, members = await _described(client, settings)
    numbers = range(partitions[settings.input_topic])
    committed = await coordinator.committed(client, settings.group_id, settings.input_topic, numbers)
    offsets = {number: each.next_offset for number, each in committed.items() if each is not None}
    undecided = {number: end for number, end in ends.items() if isinstance(end, LogEnd) and end.undecided}
    spans = await _spans(settings, partitions)
    return GroupFound(state, protocol_type, assignor, members, offsets, *spans, undecided)


async def _described(client: AIOKafkaClient, settings: Settings) -> tuple[str, str, str, tuple[Member, ...]]:
    try:
        answer = await coordinator.Group(client, settings.group_id).ask(AuthorizedGroupsRequest([settings.group_id]))
    except NotImplementedError:  # the broker does not speak this version
        return "not told by the broker", "", "", ()
    error_code, _, state, protocol_type, assignor, members, _ = answer.groups[0]
    if error_code:
        raise for_code(error_code)
    found = tuple(
        Member(
            host.removeprefix("/"),
            instance_id or "",
            _subscription(protocol_type, metadata),
        )
        for _, instance_id, _, host, metadata, _ in members
    )
    return "new" if state == "Dead" else state, protocol_type, assignor, found


def _subscription(protocol_type: str, metadata: bytes) -> tuple[str, ...]:
    """Topics of a consumer; none while it is joining."""
    if protocol_type != _PROTOCOL_TYPE or not metadata:
        return ()
    return tuple(ConsumerProtocolMemberMetadata.decode(metadata).subscription)


async def _spans(settings: Settings, partitions: Mapping[str, int]) -> tuple[dict[int, Span], dict[int, Span]]:
    """Of the input and the state topic."""
    consumer = records.standalone_consumer(settings, isolation_level="read_uncommitted")
    try:
        await consumer.start()
        found = []
        for topic in (settings.input_topic, settings.state_topic):
            tps = [TopicPartition(topic, each) for each in range(partitions[topic])]
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            found.append({each.partition: Span(begins[each], ends[each]) for each in tps})
    finally:
        await records.stop(consumer)
    return found[0], found[1]
