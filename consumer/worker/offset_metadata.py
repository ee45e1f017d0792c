"""What is stored in the metadata of the committed offset, and so is as durable as the offset."""

from msgspec import Struct
from msgspec.structs import asdict, replace

from consumer.settings import OutputName

_STREAM_MS = "stream-ms"
_CONVERSATIONS = "conversations"
_STATE_OFFSET = "state-offset"
_TRANSITIONS_OFFSET = "transitions-offset"
_DEAD_LETTERS_OFFSET = "dead-letters-offset"
_TOPIC_ID = "topic-id"


class Ends(Struct, frozen=True):
    """Offsets in the outputs of a partition: everything that was committed lies before them. None where unknown."""

    state: int | None = None
    transitions: int | None = None
    dead_letters: int | None = None

    def of(self, output: OutputName) -> int | None:
        """The one of an output."""
        return asdict(self)[output]  # type: ignore[no-any-return]

    def advance(self, ends: "Ends") -> "Ends":
        """These, with those that are known of newer ones."""
        return replace(self, **{name: end for name, end in asdict(ends).items() if end is not None})


class OffsetMetadata(Struct, frozen=True):
    """What a lane has to know beside the offset to go on where its predecessor stopped."""

    stream_ms: int | None = None
    """Stream time of the partition, None at its beginning."""
    conversations: int | None = None
    """How many conversations are in the state; None where offset and state are not committed together."""
    ends: Ends = Ends()
    """Where the outputs end with the commit; unknown as above, and where an older version committed."""
    topic_id: str = ""
    """The id of the input topic of which the offset is; empty as above, and where brokers say none."""

    def text(self) -> str:
        """The metadata."""
        fields = (
            (_STREAM_MS, self.stream_ms),
            (_CONVERSATIONS, self.conversations),
            (_STATE_OFFSET, self.ends.state),
            (_TRANSITIONS_OFFSET, self.ends.transitions),
            (_DEAD_LETTERS_OFFSET, self.ends.dead_letters),
            (_TOPIC_ID, self.topic_id or None),
        )
        return " ".join(f"{name}={value}" for name, value in fields if value is not None)


def parse(metadata: str) -> OffsetMetadata:
    """The parsed metadata; parts that are not understood are skipped, since any tool may reset an offset."""
    found = dict(part.partition("=")[::2] for part in metadata.split(" "))
    stream_ms, conversations, *ends = (
        _number(found.get(name, ""))
        for name in (_STREAM_MS, _CONVERSATIONS, _STATE_OFFSET, _TRANSITIONS_OFFSET, _DEAD_LETTERS_OFFSET)
    )
    return OffsetMetadata(stream_ms, conversations, Ends(*ends), found.get(_TOPIC_ID, ""))


def _number(digits: str) -> int | None:
    return int(digits) if digits.isdecimal() and digits.isascii() else None
