"""What a worker will meet in its group, as findings: the pure half of the group's checks."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.adapters.kafka.finding import Finding, Verdict
from consumer.adapters.kafka.group_checks import GroupFound, Member, checks, leaders
from consumer.adapters.kafka.records import Span
from consumer.runtime.settings import Settings
from consumer.runtime.standstill import LogEnd

SETTINGS = Settings(
    bootstrap_servers="b:1", input_topic="in", state_topic="state", group_id="g", group_instance_id="w-0"
)
WORKER = Member("10.0.0.1", "w-1", ("in",))
FOUND = GroupFound(
    "Stable",
    "consumer",
    "roundrobin",
    (WORKER,),
    {0: 5, 1: 20},
    {0: Span(5, 10), 1: Span(0, 20)},
    {0: Span(0, 7), 1: Span(1, 4)},
)


def one(check: str, found: GroupFound, settings: Settings = SETTINGS) -> Finding:
    """The finding of a check that is not like that of a group that is fine, else the first."""
    usual = checks(SETTINGS, FOUND)
    mine = [each for each in checks(settings, found) if each.check == check]
    return next((each for each in mine if each not in usual), mine[0])


def test_a_group_of_workers_passes_and_tells_what_is_to_do() -> None:
    findings = checks(SETTINGS, FOUND)
    assert {each.verdict for each in findings} == {"pass"}
    assert one("lag", FOUND).found.startswith("5 offsets to read of 25")
    assert "spans 10 offsets to restore" in one("size", FOUND).found


def test_a_group_that_nobody_knows_passes_and_everything_is_to_be_read() -> None:
    found = replace(FOUND, state="new", protocol_type="", assignor="", members=(), committed={})
    assert {each.verdict for each in checks(SETTINGS, found)} == {"pass"}
    assert one("lag", found).found.startswith("25 offsets to read of 25")


@pytest.mark.parametrize(
    ("check", "changed", "verdict", "says"),
    [
        ("group", {"protocol_type": "connect"}, "fail", "something else than consumers: 'connect': choose another"),
        ("group", {"assignor": "range"}, "fail", "by 'range', not by 'roundrobin': choose another CC_GROUP_ID"),
        ("group", {"assignor": "range", "members": ()}, "pass", "'g' (CC_GROUP_ID) is Stable"),
        ("group", {"state": "PreparingRebalance", "assignor": ""}, "pass", "is PreparingRebalance"),
        ("group", {"members": (Member("h", "", ("in", "b", "a")),)}, "warn", "also read a, b: give each service"),
        ("members", {"members": (WORKER,) * 3}, "warn", "3 members for 2 partitions of 'in': 1 have nothing to do"),
        ("membership", {"members": (Member("h", "w-0", ("in",)),)}, "warn", "a member at h has the id 'w-0'"),
        ("offsets", {"committed": {}}, "pass", "nothing is committed yet"),
        ("offsets", {"committed": {0: 4}}, "warn", "partition 0 at 4, which holds 5 to 10: these partitions"),
        ("offsets", {"committed": {0: 11}}, "warn", "partition 0 at 11, which holds 5 to 10: these partitions"),
        ("offsets", {"committed": {0: 10, 1: 0}}, "pass", "committed in 2 partitions, all within"),
        ("lag", {"committed": {0: 4, 1: 19}}, "pass", "6 offsets to read of 25"),
    ],
)
def test_one_thing_that_is_otherwise(check: str, changed: dict[str, Any], verdict: Verdict, says: str) -> None:
    found = one(check, replace(FOUND, **changed))
    assert found.verdict == verdict
    assert says in found.told


def test_what_waits_for_the_end_of_a_transaction_is_a_warning_with_the_commands() -> None:
    found = one("lag", replace(FOUND, undecided={1: LogEnd(20, 16, 0)}))
    assert found.verdict == "warn"
    assert found.found.startswith("partition 1 of 'in': 4 offsets from 16 on wait for the end of a transaction, whose ")
    assert "`kafka-transactions --bootstrap-server b:1 find-hanging --topic in --partition 1` finds it" in found.remedy
    assert "abort --topic in --partition 1 --start-offset 16` aborts it" in found.remedy


def test_partition_whose_leader_does_not_answer_is_named() -> None:
    assert leaders(SETTINGS, {0: LogEnd(1, 1), 1: LogEnd(2, 2)}).verdict == "pass"
    found = leaders(SETTINGS, {0: LogEnd(1, 1), 1: "no broker leads the partition"})
    assert found.verdict == "warn"
    assert "'in' (CC_INPUT_TOPIC): partition 1: no broker leads the partition" in found.found


def test_dynamic_members_have_no_id_to_share() -> None:
    found = replace(FOUND, members=(Member("h", "", ("in",)),) * 2)
    assert one("membership", found, replace(SETTINGS, group_instance_id="")).verdict == "pass"
