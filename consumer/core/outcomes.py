"""The outcome of a record: exactly one of four, each with the fields that are valid for it."""

from typing import ClassVar

from msgspec import Struct

from consumer.core.framing import Framing
from consumer.core.reasons import Anomaly, DeadLetterReason, Disposition, IgnoredReason, NoReason
from consumer.core.refold import Change
from consumer.core.state_codec import StoredState
from schemas.transition import Transition


class _Used(Struct, frozen=True, gc=False, kw_only=True):
    reason: ClassVar[NoReason] = ""
    stream_ms: int
    """Stream time of the partition after this record."""
    template: str
    """The topic's template, from the closed set `notification_topics.TEMPLATES`."""
    conversation_id: str
    snapshot_ms: int
    anomalies: tuple[Anomaly, ...]
    """Once per occurrence."""
    framings: tuple[Framing, ...] = ()
    """What was around the value, and how the key spells the conversation id."""


class Applied(_Used, frozen=True, gc=False, kw_only=True):
    """The record changed what is known of its conversation."""

    disposition: ClassVar[Disposition] = "applied"
    stored: StoredState
    """The state of the conversation after this record."""
    transitions: tuple[Transition, ...]
    """Operations to publish, in order."""
    changes: tuple[Change, ...]
    """The folded timelines that differ from before."""


class Unchanged(_Used, frozen=True, gc=False, kw_only=True):
    """The record contains nothing new: it is a duplicate, or older than all that is known."""

    disposition: ClassVar[Disposition] = "unchanged"


class Ignored(Struct, frozen=True, gc=False):
    """The record is no conversation update."""

    disposition: ClassVar[Disposition] = "ignored"
    template: ClassVar[str] = "other"
    conversation_id: ClassVar[str] = ""
    snapshot_ms: ClassVar[None] = None
    anomalies: ClassVar[tuple[Anomaly, ...]] = ()
    reason: IgnoredReason
    stream_ms: int | None
    """Stream time of the partition, which such a record does not move; None at its beginning."""


class DeadLettered(Struct, frozen=True, gc=False):
    """The record cannot be used."""

    disposition: ClassVar[Disposition] = "dead_lettered"
    anomalies: ClassVar[tuple[Anomaly, ...]] = ()
    reason: DeadLetterReason
    detail: str
    """The rule and where it was broken, free of values."""
    stream_ms: int | None
    template: str = "other"
    conversation_id: str = ""
    """Empty where none could be read."""
    snapshot_ms: int | None = None
    key_text: str = ""
    """What names the conversation where there is no `conversation_id`: the body, else the record's key."""


Outcome = Applied | Unchanged | Ignored | DeadLettered
