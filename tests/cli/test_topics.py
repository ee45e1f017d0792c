"""`topics` and `check` without a broker: exit codes and output."""

import json

import click
import pytest
from click.testing import CliRunner

from consumer.cli.check import check
from consumer.cli.exit_codes import CONFIG, UNAVAILABLE
from consumer.cli.topics import documents, table, topics
from consumer.preflight.topic_checks import TopicFound
from consumer.settings import Settings

COMMANDS = pytest.mark.parametrize("command", [topics, check], ids=["topics", "check"])


def test_settings_that_contradict_each_other_are_both_named() -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1", "CC_DRAIN_S": "45"}).invoke(topics)
    assert result.exit_code == CONFIG
    assert result.stderr == "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS\n"


def test_all_problems_of_the_settings_are_printed() -> None:
    result = CliRunner(env={"CC_ADMIN_PORT": "x", "CC_NO_SETTING": "1"}).invoke(topics)
    assert result.exit_code == CONFIG
    assert sorted(line.split(" ")[0] for line in result.stderr.splitlines()) == [
        "CC_ADMIN_PORT:",
        "CC_BOOTSTRAP_SERVERS",
        "CC_NO_SETTING",
    ]


def test_check_reports_every_problem_of_the_settings() -> None:
    result = CliRunner(env={"CC_ADMIN_PORT": "x", "CC_NO_SETTING": "1"}).invoke(check)
    assert result.exit_code == CONFIG
    assert sorted(line.split()[:3] for line in result.stdout.splitlines()) == [
        ["fail", "settings", "CC_ADMIN_PORT:"],
        ["fail", "settings", "CC_BOOTSTRAP_SERVERS"],
        ["fail", "settings", "CC_NO_SETTING"],
    ]


@COMMANDS
def test_a_missing_broker_is_unavailable(command: click.Command, dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(command)
    assert result.exit_code == UNAVAILABLE
    assert f"connecting to {dead_address}: ConnectionRefusedError: are CC_BOOTSTRAP_SERVERS" in result.output


@COMMANDS
def test_an_invalid_address_is_a_configuration_error(command: click.Command) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "host:port"}).invoke(command)
    assert result.exit_code == CONFIG
    assert "CC_BOOTSTRAP_SERVERS: 'host:port' is no list" in result.output


def test_check_reports_what_passed_before_the_failure(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check)
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["pass", "settings"],
        ["pass", "engine"],
        ["fail", "connection"],
    ]


def test_check_prints_json_lines_without_colours(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check, ["--json"], color=True)
    *passed, failed = (json.loads(line) for line in result.stdout.splitlines())
    assert [(line["check"], line["status"]) for line in passed] == [
        ("settings", "pass"),
        ("engine", "pass"),
    ]
    assert (failed["check"], failed["status"], failed["is_transient"]) == ("connection", "fail", True)
    assert "CC_BOOTSTRAP_SERVERS" in failed["message"]


def test_check_has_colours_on_a_terminal(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check, color=True)
    assert "\x1b[32mpass\x1b[0m" in result.stdout


def test_the_table_has_an_aligned_line_per_topic() -> None:
    settings = Settings(bootstrap_servers="b:1", input_topic="in", state_topic="a-long-name")
    found = {
        "in": TopicFound(4, 1, {"cleanup.policy": "delete", "max.message.bytes": "1048588"}),
        "a-long-name": TopicFound(4, 3, {"cleanup.policy": "compact", "min.insync.replicas": "2"}),
    }
    lines = table(settings, found, ["a-long-name"])
    assert [line.split() for line in lines] == [
        ["topic", "status", "partitions", "replicas", "cleanup.policy", "max.message.bytes", "min.insync.replicas"],
        ["in", "exists", "4", "1", "delete", "1048588", "-"],
        ["a-long-name", "created", "4", "3", "compact", "-", "2"],
        ["conversation-transitions", "missing", "-", "-", "-", "-", "-"],
        ["conversation-dead-letters", "missing", "-", "-", "-", "-", "-"],
    ]
    assert len({line.index(word) for line, word in zip(lines, ["status", "exists", "created"], strict=False)}) == 1
    configs = {"cleanup.policy": "delete", "max.message.bytes": "1048588", "min.insync.replicas": ""}
    first, *_, last = documents(settings, found, ["a-long-name"])
    assert first == {"topic": "in", "status": "exists", "partitions": 4, "replicas": 1, "configs": configs}
    assert (last["status"], last["partitions"]) == ("missing", 0)
