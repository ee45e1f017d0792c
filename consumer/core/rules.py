"""The settings that decide how records are read and kept."""

from msgspec import Struct

from consumer.core.timestamps import DAY_MS


class Rules(Struct, frozen=True, kw_only=True):
    """The settings of the core. Two runs with equal rules agree on every record."""

    future_skew_max_s: int = 300
    """How far a time in a record may lie after its snapshot time before it counts as a broken clock."""
    park_cycles_max: int = 32
    """Park cycles kept per communication: the first and the latest."""
    digest_key: bytes = b""
    """Key of the digests of session and room ids and of addresses, at most 64 bytes."""
    record_bytes_max: int = 4_194_304
    """A longer value is rejected unread."""
    communications_max: int = 500
    """Communications kept per conversation, and listed in one record, usable or not. About as many calls with all their
    details fit into `state_bytes_max`."""
    state_bytes_max: int = 524_288
    """Size of the published state of one conversation."""
    retention_ended_s: int = 72 * 3_600
    """How long a conversation is kept after its last communication ended. Genesys may reopen a thread for 72 h."""
    retention_idle_s: int = 35 * DAY_MS // 1_000
    """How long a conversation with a live communication is kept after its newest snapshot."""

    def __repr__(self) -> str:
        """Every rule but the key."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "digest_key"}
        return f"Rules(digest_key=..., {', '.join(f'{name}={value}' for name, value in values.items())})"
