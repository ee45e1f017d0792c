"""The commands in messages: complete, and safe to paste into a shell."""

import shlex

from consumer.kafka_commands import kafka_command, rewind_command
from consumer.settings import Settings


def test_command_names_the_brokers() -> None:
    command = kafka_command(Settings(bootstrap_servers="a:1,b:2"), "kafka-topics", "--list")
    assert command == "`kafka-topics --bootstrap-server a:1,b:2 --list`"


def test_command_names_a_file_of_credentials() -> None:
    command = kafka_command(Settings(bootstrap_servers="a:1", security_protocol="SSL"), "kafka-topics", "--list")
    assert command == "`kafka-topics --bootstrap-server a:1 --command-config admin.properties --list`"


def test_name_with_a_space_stays_one_word() -> None:
    words = shlex.split(rewind_command(Settings(bootstrap_servers="a:1", group_id="our group")).strip("`"))
    assert words[words.index("--group") + 1] == "our group"
