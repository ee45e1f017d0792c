"""What became of a record, and why: the closed sets that outcomes, dead letters, metrics and documents share."""

from typing import Final, Literal, get_args

Disposition = Literal["applied", "unchanged", "ignored", "dead_lettered"]
DISPOSITIONS: Final[tuple[Disposition, ...]] = get_args(Disposition)

IgnoredReason = Literal["tombstone", "heartbeat", "system", "subscription_reply", "other_topic", "bare_flat"]
IGNORED_REASONS: Final[tuple[IgnoredReason, ...]] = get_args(IgnoredReason)

DeadLetterReason = Literal[
    "bad_json",
    "bad_utf8",
    "wrong_type",
    "too_deep",
    "too_large",
    "no_conversation_id",
    "no_time",
    "nothing_usable",
    "key_mismatch",
    "late",
    "internal_error",
]
DEAD_LETTER_REASONS: Final[tuple[DeadLetterReason, ...]] = get_args(DeadLetterReason)

NoReason = Literal[""]
"""Of a record that was used."""
Reason = NoReason | IgnoredReason | DeadLetterReason
REASONS: Final[dict[Disposition, tuple[Reason, ...]]] = {
    "applied": ("",),
    "unchanged": ("",),
    "ignored": IGNORED_REASONS,
    "dead_lettered": DEAD_LETTER_REASONS,
}
"""Every valid pair of disposition and reason."""

Anomaly = Literal[
    "implausible_time",
    "time_of_body",
    "flat_body",
    "participant_without_id",
    "communication_without_id",
    "communication_without_state",
    "ambiguous_communication",
    "unknown_state",
    "unknown_disconnect_type",
]
"""What may be odd about the data of a record that is used all the same."""
ANOMALIES: Final[tuple[Anomaly, ...]] = get_args(Anomaly)
