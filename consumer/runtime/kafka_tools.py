"""Commands of Kafka's own tools, as messages tell them: an administrator can run them as they stand."""

import shlex

from consumer.runtime.settings import Settings


def kafka_command(settings: Settings, tool: str, arguments: str) -> str:
    """A command line in backticks. Where the brokers ask who one is, a file says so: `run` may not do any of this."""
    admin = "" if settings.security_protocol == "PLAINTEXT" else " --command-config admin.properties"
    return f"`{tool} --bootstrap-server {shlex.quote(settings.bootstrap_servers)}{admin} {arguments}`"


def rewind_command(settings: Settings) -> str:
    """What makes the group read the input from its beginning. It is refused while a worker is in the group."""
    group, topic = shlex.quote(settings.group_id), shlex.quote(settings.input_topic)
    arguments = f"--group {group} --topic {topic} --reset-offsets --to-earliest --execute"
    return kafka_command(settings, "kafka-consumer-groups", arguments)


def abort_command(settings: Settings, topic: str, partition: int, start_offset: int) -> str:
    """What aborts the transaction whose records begin at an offset of a partition."""
    arguments = f"abort --topic {shlex.quote(topic)} --partition {partition} --start-offset {start_offset}"
    return kafka_command(settings, "kafka-transactions", arguments)
