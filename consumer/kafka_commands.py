"""Commands of Kafka's own tools, complete, so that an administrator can run them as messages show them."""

import shlex

from consumer.settings import Settings


def kafka_command(settings: Settings, tool: str, arguments: str) -> str:
    """A command line in backticks.

    Where brokers authenticate their users it names a file with an administrator's credentials, since the service's own
    user may do none of this.
    """
    admin = "" if settings.security_protocol == "PLAINTEXT" else " --command-config admin.properties"
    return f"`{tool} --bootstrap-server {shlex.quote(settings.bootstrap_servers)}{admin} {arguments}`"


def rewind_command(settings: Settings) -> str:
    """The command that makes the group read the input from its beginning. Kafka refuses it while a worker runs."""
    group, topic = shlex.quote(settings.group_id), shlex.quote(settings.input_topic)
    arguments = f"--group {group} --topic {topic} --reset-offsets --to-earliest --execute"
    return kafka_command(settings, "kafka-consumer-groups", arguments)


def abort_command(settings: Settings, topic: str, partition: int, start_offset: int) -> str:
    """The command that aborts the transaction whose records begin at an offset of a partition."""
    arguments = f"abort --topic {shlex.quote(topic)} --partition {partition} --start-offset {start_offset}"
    return kafka_command(settings, "kafka-transactions", arguments)
