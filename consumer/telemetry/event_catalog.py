"""Every event that the service logs, for the documentation: its level, its fields, and what it means.

A test compares the list with the calls in the code. A line also has `event`, `level` and `timestamp`.
"""

from typing import Final, Literal

from msgspec import Struct

Level = Literal["info", "warning", "error"]


class LogEvent(Struct, frozen=True):
    """One event. `fields` that only some lines have are in the list too."""

    name: str
    level: Level
    fields: tuple[str, ...]
    meaning: str


LOG_EVENTS: Final = (
    LogEvent(
        "breaker.opened",
        "error",
        ("partition", "cause", "remedy"),
        "A lane stopped because nearly all records of its partition are dead letters.",
    ),
    LogEvent(
        "consumer.broker_defect",
        "warning",
        ("message", "remedy"),
        "At the start: the version of some brokers loses the end of transactions (KAFKA-20734).",
    ),
    LogEvent(
        "consumer.descriptors_low",
        "warning",
        ("message", "remedy"),
        "At the start: the process may open fewer files and sockets than all partitions need.",
    ),
    LogEvent(
        "consumer.drained", "info", ("in_time",), "All lanes are closed; `in_time` is false if some were cut off."
    ),
    LogEvent("consumer.draining", "info", ("seconds_max",), "The worker was asked to stop and commits what it has."),
    LogEvent(
        "consumer.failed",
        "error",
        ("error", "exit_code"),
        "The process ends. `error` has the cause and the remedy; for a bug, its type and place.",
    ),
    LogEvent(
        "consumer.insecure",
        "warning",
        ("message", "remedy"),
        "At the start: others can read secrets or records, or find out ids from their digests.",
    ),
    LogEvent(
        "consumer.memory_low",
        "warning",
        ("state_bytes", "state_bytes_max", "remedy"),
        "The states take nine tenths of CC_STATE_TOTAL_BYTES_MAX or more. Repeated every ten minutes.",
    ),
    LogEvent(
        "consumer.progress",
        "info",
        (
            "seconds",
            "consumed",
            "applied",
            "unchanged",
            "ignored",
            "dead_lettered",
            "transitions",
            "corrections",
            "evicted",
            "commits",
            "slowest_commit_s",
            "lag_records",
            "oldest_age_s",
        ),
        "What was committed since the last such line; at most one in 10 seconds, none while nothing is committed.",
    ),
    LogEvent(
        "consumer.starting",
        "info",
        ("version", "engine", "delivery", "admin_port", "query_port"),
        "The topics fit, both ports answer, and the worker joins the group next. `engine` is `native` or `python`.",
    ),
    LogEvent("consumer.stopped", "info", (), "The last line of a process that was asked to stop."),
    LogEvent("group.assigned", "info", ("partitions",), "The group gave this worker these partitions."),
    LogEvent(
        "group.disconnected",
        "warning",
        ("error",),
        "Kafka does not have this worker in the group; `error` has the cause. Repeated every 30 seconds.",
    ),
    LogEvent("group.revoked", "info", ("partitions",), "The group took these partitions from this worker."),
    LogEvent(
        "lane.batch_passed_over",
        "warning",
        ("partition", "offset", "cause", "others"),
        "A batch of the input that is larger than `CC_DECOMPRESSED_BYTES_MAX` was left out with a dead letter; "
        "`offset` is its last.",
    ),
    LogEvent(
        "lane.batch_too_large",
        "error",
        ("partition", "error"),
        "A lane stopped at a batch that is larger than `CC_DECOMPRESSED_BYTES_MAX`; `error` has the remedy.",
    ),
    LogEvent(
        "lane.closed",
        "info",
        ("partition", "reason"),
        "A lane ended. `reason` is `drained`, `revoked`, or `abandoned` if it was cut off.",
    ),
    LogEvent(
        "lane.failed",
        "warning",
        ("partition", "error", "repeated", "others"),
        "A commit or an opening failed; the lane tries again. `repeated` counts equal failures that were not logged, "
        "`others` lines of other lanes that were left out.",
    ),
    LogEvent(
        "lane.fenced",
        "warning",
        ("partition", "error", "repeated", "others"),
        "Another producer took the partition over, or the broker aborted the transaction.",
    ),
    LogEvent("lane.moves_again", "info", ("partition",), "A partition that stood still does so no more."),
    LogEvent(
        "lane.offset_reset",
        "warning",
        ("partition", "wanted", "at"),
        "The committed offset `wanted` is not in the partition; the lane goes on at the first record, `at`.",
    ),
    LogEvent(
        "lane.opened",
        "info",
        ("partition", "conversations", "state_bytes", "seconds"),
        "A lane has restored its state and begins to read.",
    ),
    LogEvent(
        "lane.stands_still",
        "warning",
        ("partition", "cause", "message", "remedy", "others"),
        "A partition does not move although records wait or may wait. `cause` is `leader`, `open_transaction` or "
        "`unread`; when it becomes another one, there is another line.",
    ),
    LogEvent(
        "lane.transaction_repaired",
        "warning",
        ("partition", "verdict", "hanging", "cause"),
        "The lane wrote the end of a transaction that brokers had lost in the topics `hanging`.",
    ),
    LogEvent(
        "library.message",
        "warning",
        ("logger", "message", "error"),
        "A line of a library from WARNING on, or at level error from ERROR on; two a minute of each logger.",
    ),
    LogEvent("library.suppressed", "warning", ("logger", "lines"), "How many lines of a library were left out."),
    LogEvent("loop.exception", "error", ("error",), "An exception that no task awaited, by its type and place."),
    LogEvent(
        "oauth.renewal_failed",
        "warning",
        ("error",),
        "There is no new token; the last one stays in use until it expires. Repeated when the cause changes.",
    ),
    LogEvent("oauth.token_renewed", "info", ("failures",), "There is a new token, after failures in a row."),
    LogEvent(
        "query.asked",
        "info",
        ("peer", "session", "path", "conversation"),
        "With `CC_QUERY_AUDIT=on`: a client asks the query port. `session` is the label of a session, `token` for a "
        "bearer token, and null if no token is set; `conversation` is a digest of its id.",
    ),
    LogEvent(
        "query.sign_in_failed",
        "warning",
        ("peer", "way", "repeated", "others"),
        "A wrong token, by the `form`, the `header` or the `signature` of a worker; a line a minute for each address "
        "and ten for all. `repeated` failures of this address and `others` of further ones were left out.",
    ),
    LogEvent("tls.files_renewed", "info", (), "New connections use certificate files that have changed."),
    LogEvent(
        "tls.files_unusable",
        "warning",
        ("error", "remedy"),
        "Certificate files have changed and cannot be used: new connections use the ones before.",
    ),
)
"""Sorted by name."""
