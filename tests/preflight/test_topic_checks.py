"""The checks of the four topics, as sentences."""

from typing import Any

import pytest

from consumer.preflight import check_result
from consumer.preflight.topic_checks import TopicFound, checks, plans
from consumer.settings import Settings

SETTINGS = Settings(
    bootstrap_servers="b:1", input_topic="in", state_topic="state", transitions_topic="moves", dead_letters_topic="dead"
)


def failures(settings: Settings, found: dict[str, TopicFound]) -> list[str]:
    return check_result.sentences(checks(settings, found), "fail")


def warnings(settings: Settings, found: dict[str, TopicFound]) -> list[str]:
    return check_result.sentences(checks(settings, found), "warn")


def topic(partitions: int = 4, replicas: int = 3, **configs: str) -> TopicFound:
    changes = {name.replace("_", "."): value for name, value in configs.items()}
    usual = {"cleanup.policy": "delete", "max.message.bytes": "8388608", "min.insync.replicas": "2"}
    return TopicFound(partitions, replicas, {**usual, **changes})


def fitting(**changes: TopicFound | None) -> dict[str, TopicFound]:
    """Topics that fit, with changes; None removes a topic."""
    usual: dict[str, TopicFound | None] = {
        "in": topic(),
        "state": topic(cleanup_policy="compact"),
        "moves": topic(),
        "dead": topic(),
    }
    return {name: found for name, found in {**usual, **changes}.items() if found is not None}


def test_fitting_topics_have_no_failures_and_no_warnings() -> None:
    assert (failures(SETTINGS, fitting()), warnings(SETTINGS, fitting())) == ([], [])


def test_topics_that_are_created_by_plan_fit() -> None:
    found = {plan.name: TopicFound(4, 3, {"min.insync.replicas": "2", **plan.configs}) for plan in plans(SETTINGS)}
    assert failures(SETTINGS, found) == []


def test_missing_topics_are_named_with_setting_and_command() -> None:
    problems = failures(SETTINGS, {})
    for problem, (name, setting) in zip(
        problems,
        [
            ("in", "CC_INPUT_TOPIC"),
            ("state", "CC_STATE_TOPIC"),
            ("moves", "CC_TRANSITIONS_TOPIC"),
            ("dead", "CC_DEAD_LETTERS_TOPIC"),
        ],
        strict=True,
    ):
        assert problem.startswith(f"topic {name!r} ({setting}) does not exist")
        assert "topics --create --partitions" in problem


@pytest.mark.parametrize("name", ["state", "moves", "dead"])
def test_fewer_partitions_than_the_input_do_not_fit(name: str) -> None:
    policy = "compact" if name == "state" else "delete"
    (problem,) = failures(SETTINGS, fitting(**{name: topic(3, cleanup_policy=policy)}))
    assert f"topic {name!r} has 3 partitions but 'in' has 4" in problem
    assert f"`kafka-topics --bootstrap-server b:1 --alter --topic {name} --partitions 4`" in problem


def test_input_that_has_grown_needs_a_rekey() -> None:
    (problem,) = failures(SETTINGS, fitting(state=topic(3, cleanup_policy="compact")))
    assert "its keys have moved: copy it with `conversation-consumer rekey`" in problem


def test_only_dead_letters_may_have_more_partitions() -> None:
    found = fitting(state=topic(5, cleanup_policy="compact"), moves=topic(5), dead=topic(5))
    problems = failures(SETTINGS, found)
    assert [problem.split(":")[0] for problem in problems] == [
        "topic 'state' has 5 partitions but 'in' has 4",
        "topic 'moves' has 5 partitions but 'in' has 4",
    ]
    assert "name another topic in CC_STATE_TOPIC" in problems[0]


@pytest.mark.parametrize(
    ("name", "policy", "wanted"),
    [
        ("state", "delete", "compact"),
        ("state", "compact,delete", "compact"),
        ("moves", "compact", "delete"),
        ("moves", "compact,delete", "delete"),
        ("dead", "compact", "delete"),
    ],
)
def test_cleanup_policy_that_loses_data_does_not_fit(name: str, policy: str, wanted: str) -> None:
    (problem,) = failures(SETTINGS, fitting(**{name: topic(cleanup_policy=policy)}))
    assert problem == (
        f"topic {name!r} has cleanup.policy={policy}, it has to be {wanted}: `kafka-configs --bootstrap-server b:1 "
        f"--alter --entity-type topics --entity-name {name} --add-config cleanup.policy={wanted}`"
    )


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
def test_compacted_input_does_not_fit(policy: str) -> None:
    (problem,) = failures(SETTINGS, fitting(**{"in": topic(cleanup_policy=policy)}))
    assert problem == (
        f"topic 'in' (CC_INPUT_TOPIC) has cleanup.policy={policy}, it has to be delete: compaction removes updates "
        f"that were not read yet, and those that `verify` and a rebuild need: `kafka-configs --bootstrap-server b:1 "
        f"--alter --entity-type topics --entity-name in --add-config cleanup.policy=delete`"
    )


def test_input_of_unknown_policy_fits() -> None:
    assert failures(SETTINGS, fitting(**{"in": TopicFound(4, 3, {})})) == []


@pytest.mark.parametrize(("size", "fits"), [("899999", False), ("900000", True)])
def test_batch_has_to_fit_every_output_topic(size: str, fits: bool) -> None:  # noqa: FBT001 - a column of the table
    problems = failures(SETTINGS, fitting(moves=topic(max_message_bytes=size)))
    assert (problems == []) is fits
    assert fits or "below CC_BATCH_BYTES_MAX=900000" in problems[0]


@pytest.mark.parametrize(("size", "fits"), [("8388607", False), ("8388608", True)])
def test_largest_dead_letter_has_to_fit_its_topic(size: str, fits: bool) -> None:  # noqa: FBT001 - as above
    problems = failures(SETTINGS, fitting(dead=topic(max_message_bytes=size)))
    assert (problems == []) is fits
    assert fits or "below CC_DEAD_LETTER_BYTES_MAX=8388608" in problems[0]


def test_more_insync_replicas_than_replicas_do_not_fit() -> None:
    (problem,) = failures(SETTINGS, fitting(moves=topic(replicas=1, min_insync_replicas="2")))
    assert "nothing can be written to it" in problem
    assert "--add-config min.insync.replicas=1" in problem


def test_all_problems_are_reported_at_once() -> None:
    found = fitting(state=topic(3), moves=topic(max_message_bytes="1000"), dead=None)
    assert len(failures(SETTINGS, found)) == 4


@pytest.mark.parametrize(
    ("configs", "warned"),
    [
        ({"message_timestamp_after_max_ms": "9223372036854775807"}, True),
        ({"message_timestamp_after_max_ms": "3600001"}, True),
        ({"message_timestamp_after_max_ms": "3600000"}, False),
        ({"message_timestamp_after_max_ms": "3600001", "message_timestamp_type": "LogAppendTime"}, False),
        ({}, False),
    ],
)
def test_future_timestamps_are_a_warning(configs: dict[str, Any], warned: bool) -> None:  # noqa: FBT001 - as above
    messages = warnings(SETTINGS, fitting(**{"in": topic(**configs)}))
    assert bool(messages) is warned
    assert not warned or "--add-config message.timestamp.after.max.ms=3600000" in messages[0]


def test_replicas_that_need_not_be_in_sync_are_a_warning() -> None:
    (message,) = warnings(SETTINGS, fitting(moves=topic(min_insync_replicas="1")))
    assert message.startswith("topic 'moves' has 3 replicas but min.insync.replicas=1")


def test_single_replicas_are_one_warning() -> None:
    (message,) = warnings(SETTINGS, fitting(moves=topic(replicas=1, min_insync_replicas="1"), dead=topic(replicas=1)))
    assert message.startswith("'moves', 'dead': one replica")


@pytest.mark.parametrize(
    ("configs", "status", "says"),
    [
        ({"retention_ms": "604800000"}, "pass", "it keeps records for 7 days"),
        ({"retention_ms": "259200000"}, "pass", "it keeps records for 3 days"),
        ({"retention_ms": "259199999"}, "warn", "shorter than CC_RETENTION_ENDED_S=259200"),
        ({"retention_ms": "-1", "retention_bytes": "5000"}, "pass", "for ever and at most 5000 bytes of a partition"),
        ({}, "pass", "for a time that the broker does not report"),
    ],
)
def test_retention_of_the_input_has_to_cover_an_outage(configs: dict[str, Any], status: str, says: str) -> None:
    results = checks(SETTINGS, fitting(**{"in": topic(**configs)}))
    (result,) = [result for result in results if result.check == "retention"]
    assert result.status == status
    assert says in result.message
    assert ("--add-config retention.ms=259200000" in result.remedy) == (status == "warn")
