"""What travels in the metadata of the committed offset, and is therefore as durable as the offset."""

from msgspec import Struct

_STREAM_MS = "stream-ms"
_CONVERSATIONS = "conversations"
_STATE_OFFSET = "state-offset"


class Bookmark(Struct, frozen=True):
    """What a lane has to know beside the offset to go on where its predecessor stopped."""

    stream_ms: int | None = None
    """Stream time of the partition, None at its beginning."""
    conversations: int | None = None
    """How many conversations are in the state; None where offset and state are not committed together."""
    state_offset: int | None = None
    """The offset after the newest state, in the state topic; None as above."""

    def text(self) -> str:
        """The metadata."""
        told = (
            (_STREAM_MS, self.stream_ms),
            (_CONVERSATIONS, self.conversations),
            (_STATE_OFFSET, self.state_offset),
        )
        return " ".join(f"{name}={number}" for name, number in told if number is not None)


def parse(metadata: str) -> Bookmark:
    """The bookmark of a metadata; what is not understood says nothing, for anybody may reset an offset."""
    found = dict(part.partition("=")[::2] for part in metadata.split(" "))
    return Bookmark(*(_number(found.get(name, "")) for name in (_STREAM_MS, _CONVERSATIONS, _STATE_OFFSET)))


def _number(digits: str) -> int | None:
    return int(digits) if digits.isdecimal() and digits.isascii() else None
