"""The checks of the group that a worker joins, as far as they are pure."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.kafka.records import OffsetRange
from consumer.preflight.check_result import CheckResult, CheckStatus
from consumer.preflight.group_checks import GroupFound, Member, checks, leaders, output_leaders
from consumer.preflight.topic_checks import TopicFound
from consumer.settings import Settings
from consumer.worker.standstill import LogEnd

SETTINGS = Settings(
    bootstrap_servers="b:1", input_topic="in", state_topic="state", group_id="g", group_instance_id="w-0"
)
WORKER = Member("10.0.0.1", "w-1", ("in",))
GROUP = GroupFound(
    "Stable",
    "consumer",
    "roundrobin",
    (WORKER,),
    (),
    {0: 5, 1: 20},
    {0: OffsetRange(5, 10), 1: OffsetRange(0, 20)},
    {0: OffsetRange(0, 7), 1: OffsetRange(1, 4)},
)


def result_of(check: str, group: GroupFound, settings: Settings = SETTINGS) -> CheckResult:
    """The result of a check by its name; of several with that name, the first that `GROUP` does not give."""
    usual = checks(SETTINGS, GROUP)
    results = [result for result in checks(settings, group) if result.check == check]
    return next((result for result in results if result not in usual), results[0])


def test_group_of_workers_passes_with_its_lag() -> None:
    assert {result.status for result in checks(SETTINGS, GROUP)} == {"pass"}
    assert result_of("lag", GROUP).message.startswith("5 offsets to read of 25")
    assert "spans 10 offsets to restore" in result_of("size", GROUP).message


def test_new_group_passes_with_everything_to_read() -> None:
    group = replace(GROUP, state="new", protocol_type="", assignor="", members=(), committed={}, state_spans={})
    assert {result.status for result in checks(SETTINGS, group)} == {"pass"}
    assert result_of("lag", group).message.startswith("25 offsets to read of 25")


@pytest.mark.parametrize(
    ("check", "changes", "status", "says"),
    [
        ("group", {"protocol_type": "connect"}, "fail", "something else than consumers: 'connect': choose another"),
        ("group", {"assignor": "range"}, "fail", "by 'range', not by 'roundrobin': choose another CC_GROUP_ID"),
        (
            "group",
            {"newer_members": ("h", "h")},
            "fail",
            "the newer protocol (group.protocol=consumer), at h:",
        ),
        ("group", {"assignor": "range", "members": ()}, "pass", "'g' (CC_GROUP_ID) is Stable"),
        ("group", {"state": "PreparingRebalance", "assignor": ""}, "pass", "is PreparingRebalance"),
        ("group", {"members": (Member("h", "", ("in", "b", "a")),)}, "warn", "also read a, b: give each service"),
        ("members", {"members": (WORKER,) * 3}, "warn", "3 members for 2 partitions of 'in': 1 have nothing to do"),
        ("membership", {"members": (Member("h", "w-0", ("in",)),)}, "warn", "a member at h has the id 'w-0'"),
        ("offsets", {"committed": {}, "state_spans": {}}, "pass", "nothing is committed yet"),
        ("offsets", {"committed": {}}, "warn", "no offset is committed in partitions 0, 1, but the state topic"),
        ("offsets", {"committed": {0: 5}}, "warn", "no offset is committed in partitions 1, but"),
        ("offsets", {"committed": {1: 20, 0: 4}}, "warn", "partition 0 at 4, which holds 5 to 10: these partitions"),
        ("offsets", {"committed": {1: 20, 0: 11}}, "warn", "partition 0 at 11, which holds 5 to 10: these partitions"),
        ("offsets", {"committed": {0: 10, 1: 0}}, "pass", "committed in 2 partitions, all within"),
        ("lag", {"committed": {0: 4, 1: 19}}, "pass", "6 offsets to read of 25"),
    ],
)
def test_one_difference_decides_a_check(check: str, changes: dict[str, Any], status: CheckStatus, says: str) -> None:
    result = result_of(check, replace(GROUP, **changes))
    assert result.status == status
    assert says in result.sentence


def test_undecided_records_are_a_warning_with_the_commands() -> None:
    result = result_of("lag", replace(GROUP, undecided={1: LogEnd(20, 16, 0)}))
    assert result.status == "warn"
    assert result.message.startswith(
        "partition 1 of 'in': 4 offsets from 16 on wait for the end of a transaction, whose "
    )
    assert "`kafka-transactions --bootstrap-server b:1 find-hanging --topic in --partition 1` finds it" in result.remedy
    assert "abort --topic in --partition 1 --start-offset 16` aborts it" in result.remedy


def test_partitions_of_outputs_without_a_leader_are_named() -> None:
    topics = {"in": TopicFound(4, 1, {}, (0,)), "state": TopicFound(4, 1, {}, (1, 3))}
    (result,) = output_leaders(SETTINGS, topics)
    assert (result.check, result.status) == ("leaders", "warn")
    assert result.message == "'state' (CC_STATE_TOPIC): no broker leads the partitions 1, 3"
    assert output_leaders(SETTINGS, {"state": TopicFound(4, 1, {})}) == []


def test_partition_whose_leader_does_not_answer_is_named() -> None:
    assert leaders(SETTINGS, {0: LogEnd(1, 1), 1: LogEnd(2, 2)}).status == "pass"
    result = leaders(SETTINGS, {0: LogEnd(1, 1), 1: "no broker leads the partition"})
    assert result.status == "warn"
    assert "'in' (CC_INPUT_TOPIC): partition 1: no broker leads the partition" in result.message


def test_dynamic_members_have_no_id_to_share() -> None:
    group = replace(GROUP, members=(Member("h", "", ("in",)),) * 2)
    assert result_of("membership", group, replace(SETTINGS, group_instance_id="")).status == "pass"
