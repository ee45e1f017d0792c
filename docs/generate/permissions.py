"""The page of all permissions."""

from consumer.kafka.acls import Grant, autoscaler_grants, grants
from consumer.settings import Settings
from docs.generate.markdown import code, document, table

_INTRO = """
Where the brokers check permissions, the service needs these and no others. Read and Write include Describe. The names
are those of the default settings. `conversation-consumer check` names each permission that is missing, with the command
that grants it.

## run, check
"""
_AT_LEAST_ONCE = """
With `CC_DELIVERY=at_least_once` it needs no transactional id, and no Read on the transitions and the dead letters.

An autoscaler, such as KEDA, is better given a user of its own, which sees offsets and no records:
"""
_COMMANDS = """
## Other commands
"""
_PREFIXES = """
The transactional ids of `redrive` and `rekey` begin with the worker's own prefix: a user who may `run` may use them.
"""


def page() -> str:
    """`permissions.md`."""
    settings = Settings(bootstrap_servers="broker:9092")
    rows = [_row(grant) for grant in grants(settings)]
    return document(
        "Permissions",
        _INTRO,
        table(("resource", "permissions", "setting"), rows),
        _AT_LEAST_ONCE,
        table(("resource", "permissions", "setting"), [_row(grant) for grant in autoscaler_grants(settings)]),
        _COMMANDS,
        table(("command", "resource", "permissions"), _of_commands(settings)),
        _PREFIXES,
    )


def _row(grant: Grant) -> tuple[str, str, str]:
    name = f"{grant.resource} {code(grant.name)}{', as a prefix' if grant.is_prefix else ''}"
    return name, ", ".join(grant.operations), code(*grant.setting.split(", "))


def _of_commands(settings: Settings) -> list[tuple[str, str, str]]:
    source, state, _, letters = map(code, settings.topics)
    prefix = f"{settings.group_id}:{settings.input_topic}:"
    return [
        ("`topics`", "the four topics", "Describe, DescribeConfigs"),
        ("`topics --create`", "the four topics", "Create, Describe, DescribeConfigs"),
        ("`generate`", "the topic that it writes to", "Write"),
        ("`inspect`", f"topic {state}", "Read, DescribeConfigs"),
        ("", "the other three topics", "Describe, DescribeConfigs"),
        ("", f"group {code(settings.group_id)}", "Describe"),
        ("`inspect --why`, or where keys are [spelled otherwise](../how-to/relays.md)", f"also topic {source}", "Read"),
        ("`verify`", "the four topics", "Read, DescribeConfigs"),
        ("", f"group {code(settings.group_id)}", "Describe"),
        ("`export`", "topic of each table", "Read"),
        ("", "the four topics", "Describe, DescribeConfigs"),
        ("", f"group {code(settings.group_id)}", "Describe"),
        ("`dead-letters list`, `show`", f"topic {letters}", "Read"),
        ("", f"topic {source}", "Describe"),
        ("`dead-letters redrive --yes`", f"topics {letters} and {source}", "Read, Write"),
        ("", f"transactional-id {code(f'{prefix}redrive:')}, as a prefix", "Write"),
        ("`rekey SOURCE TARGET`", "topic SOURCE", "Read"),
        ("", "topic TARGET", "Read, Write"),
        ("", f"group {code(f'{settings.group_id}-rekey.SOURCE.TARGET')}", "Read"),
        ("", f"transactional-id {code(f'{prefix}rekey:SOURCE:TARGET')}", "Write"),
    ]
