"""`topics` and `check` without a broker: exit codes, and what stands where."""

import json

import click
import pytest
from click.testing import CliRunner

from consumer.adapters.kafka.topic_checks import TopicFound
from consumer.cli.check import check
from consumer.cli.exits import CONFIG, UNAVAILABLE
from consumer.cli.topics import table, topics
from consumer.runtime.settings import Settings

COMMANDS = pytest.mark.parametrize("command", [topics, check], ids=["topics", "check"])


def test_settings_that_break_a_promise_together_are_refused_with_both_names() -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1", "CC_DRAIN_S": "45"}).invoke(topics)
    assert result.exit_code == CONFIG
    assert result.stderr == "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS\n"


def test_settings_with_problems_end_with_all_of_them() -> None:
    result = CliRunner(env={"CC_ADMIN_PORT": "x", "CC_NO_SETTING": "1"}).invoke(topics)
    assert result.exit_code == CONFIG
    assert sorted(line.split(" ")[0] for line in result.stderr.splitlines()) == [
        "CC_ADMIN_PORT:",
        "CC_BOOTSTRAP_SERVERS",
        "CC_NO_SETTING",
    ]


def test_check_finds_every_problem_of_the_settings() -> None:
    result = CliRunner(env={"CC_ADMIN_PORT": "x", "CC_NO_SETTING": "1"}).invoke(check)
    assert result.exit_code == CONFIG
    assert sorted(line.split()[:3] for line in result.stdout.splitlines()) == [
        ["fail", "settings", "CC_ADMIN_PORT:"],
        ["fail", "settings", "CC_BOOTSTRAP_SERVERS"],
        ["fail", "settings", "CC_NO_SETTING"],
    ]


@COMMANDS
def test_a_broker_that_is_not_there_is_unavailable(command: click.Command, dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(command)
    assert result.exit_code == UNAVAILABLE
    assert f"connecting to {dead_address}: ConnectionRefusedError: are CC_BOOTSTRAP_SERVERS" in result.output


@COMMANDS
def test_an_address_that_is_none_is_a_configuration_error(command: click.Command) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "host:port"}).invoke(command)
    assert result.exit_code == CONFIG
    assert "CC_BOOTSTRAP_SERVERS: 'host:port' is no list" in result.output


def test_check_says_what_held_before_the_failure(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check)
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["pass", "settings"], ["fail", "connection"]]


def test_check_gives_json_lines_without_colours(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check, ["--json"], color=True)
    passed, failed = (json.loads(line) for line in result.stdout.splitlines())
    assert (passed["check"], passed["verdict"]) == ("settings", "pass")
    assert (failed["check"], failed["verdict"], failed["heals"]) == ("connection", "fail", True)
    assert "CC_BOOTSTRAP_SERVERS" in failed["found"]


def test_check_has_colours_on_a_terminal(dead_address: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(check, color=True)
    assert "\x1b[32mpass\x1b[0m" in result.stdout


def test_the_table_has_a_line_per_topic_in_columns() -> None:
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
