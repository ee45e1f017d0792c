"""The commands that messages tell: complete, and safe to paste into a shell."""

import shlex

from consumer.runtime.kafka_tools import kafka_command, rewind_command
from consumer.runtime.settings import Settings


def test_a_command_says_where_the_brokers_are() -> None:
    told = kafka_command(Settings(bootstrap_servers="a:1,b:2"), "kafka-topics", "--list")
    assert told == "`kafka-topics --bootstrap-server a:1,b:2 --list`"


def test_where_brokers_ask_who_one_is_a_file_says_it() -> None:
    told = kafka_command(Settings(bootstrap_servers="a:1", security_protocol="SSL"), "kafka-topics", "--list")
    assert told == "`kafka-topics --bootstrap-server a:1 --command-config admin.properties --list`"


def test_a_name_with_a_space_stays_one_word() -> None:
    words = shlex.split(rewind_command(Settings(bootstrap_servers="a:1", group_id="our group")).strip("`"))
    assert words[words.index("--group") + 1] == "our group"
