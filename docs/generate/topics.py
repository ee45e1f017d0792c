"""The page of the four topics and of the messages in them."""

from typing import Final

from consumer.preflight.topic_checks import plans
from consumer.settings import Settings
from docs.generate.markdown import code, document, table
from docs.generate.messages import sections
from schemas.state import STATE_SCHEMA, ConversationState
from schemas.transition import TRANSITION_SCHEMA, Transition

_INTRO = """
`conversation-consumer topics` verifies them and, with `--create`, makes those that do not exist. No other command
creates anything. Partitions correspond: what is read from partition 3 of the input is written to partition 3 of the
outputs.
"""
_KEYS = """
`max.message.bytes` is what `topics --create` sets: the largest batch of the setting that bounds it, and some room. The
topic may allow more. Production needs three replicas and `min.insync.replicas=2`.

| topic | key | value |
| --- | --- | --- |
| input | conversation id | a conversation update: [what is accepted](../concepts/dead-letters.md#what-is-accepted) |
| state | conversation id | a [ConversationState](#conversationstate), or a tombstone after an eviction |
| transitions | conversation id | a [Transition](#transition) |
| dead letters | the original key | the original value, and [headers](#headers) |

Readers set `isolation.level=read_committed`: [consume the outputs](../how-to/consume.md).
"""
_MESSAGES = f"""
## Messages

JSON in UTF-8. The `schema` number of states is {STATE_SCHEMA}, that of transitions {TRANSITION_SCHEMA}. It rises when a
reader of the older form would go wrong. Within a number fields may be added, and states may be new: they are the
provider's words ([all rules](schema-evolution.md)). A field that is absent has no value. Times are ISO 8601 in UTC,
always with milliseconds.
"""
_HEADERS_INTRO = """
## Headers

Those of a dead letter:
"""
_HEADERS: Final = {
    "cc-reason": "Why the record could not be used, from a closed set.",
    "cc-detail": "The rule, and where in the record it was broken. Never a value.",
    "cc-source-topic": "Topic of the record.",
    "cc-source-partition": "Its partition.",
    "cc-source-offset": "Its offset.",
    "cc-source-timestamp-ms": "Its timestamp in epoch milliseconds, -1 where it had none.",
    "cc-service-version": "Version of the service that could not use it.",
    "cc-payload": "Only where key and value were left out: why.",
    "cc-source-snapshot-time": "Only where the record had a `snapshot-time` header: its value.",
    "cc-redrives": "Only where the record had been a dead letter before: how often it was put back into the input.",
    "cc-redriven": "Only on a marker of `dead-letters redrive`, which has no key: how many dead letters it names.",
}
_INPUT_HEADERS = """
Of the headers of an input record two are read: `snapshot-time`, the time of the snapshot in epoch milliseconds, which
`rekey` and `redrive` write, and `cc-redrives`.
"""


def page() -> str:
    """`topics.md`."""
    rows = [
        (
            code(plan.name),
            code(plan.setting),
            "at least those of the input" if plan.more_partitions else "those of the input",
            code(plan.configs["cleanup.policy"]),
            plan.configs.get("max.message.bytes", ""),
            code(plan.bytes_setting) if plan.bytes_setting else "",
        )
        for plan in plans(Settings(bootstrap_servers="broker:9092"))
    ]
    columns = ("topic", "setting", "partitions", "`cleanup.policy`", "`max.message.bytes`", "bounded by")
    return document(
        "Topics",
        _INTRO,
        table(columns, rows),
        _KEYS,
        _MESSAGES,
        sections(ConversationState, Transition),
        _HEADERS_INTRO,
        table(("header", "meaning"), [(code(name), meaning) for name, meaning in _HEADERS.items()]),
        _INPUT_HEADERS,
    )
