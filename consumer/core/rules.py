"""The settings that the rules of the core depend on."""

from typing import Literal

from msgspec import Struct

from consumer.core.times import DAY_MS


class Rules(Struct, frozen=True, kw_only=True):
    """What decides how a record is read and kept. Two runs with equal rules agree on every record."""

    future_skew_max_s: int = 300
    """How far a time in a record may lie after its snapshot time before it counts as a broken clock."""
    park_cycles_max: int = 32
    """Park cycles kept per communication: the first and the latest."""
    key_mismatch: Literal["dead_letter", "apply"] = "dead_letter"
    """What becomes of a record whose key is not its conversation id."""
    digest_key: bytes = b""
    """Key of the digests of session and room ids, at most 64 bytes."""
    record_bytes_max: int = 4_194_304
    """A record value longer than this is rejected unread."""
    communications_max: int = 500
    """Communications kept per conversation, and listed in one record, whether they can be used or not. With all that is
    known of a call `state_bytes_max` holds about as many."""
    state_bytes_max: int = 524_288
    """Size of the state of one conversation, as published."""
    retention_ended_s: int = 72 * 3_600
    """How long a conversation is kept after its last communication ended; Genesys may reopen a thread for 72 h."""
    retention_idle_s: int = 35 * DAY_MS // 1_000
    """How long a conversation with a live communication is kept without news."""
