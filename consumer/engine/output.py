"""A record to publish: a lane's effect, or a record that a tool writes again."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from msgspec import Struct


class Output(Struct, frozen=True):
    """A record to publish.

    A lane sets the first three fields only: its publisher knows the topic, and the partition is that of the input.
    """

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    topic: str | None = None
    partition: int | None = None
    """Modulo the topic's partition count; None for the partition of the key."""
    timestamp_ms: int | None = None
    """Epoch milliseconds; None lets the producer set its own time."""


class PackedRecords(Struct, frozen=True):
    """Records as a batch of Kafka (format 2) holds them, uncompressed. Their time is that of the batch."""

    count: int
    content: bytes


class PackableOutputs(Sequence[Output]):
    """Outputs of one topic that can be packed as they are, without an object for each."""

    @abstractmethod
    def pack(self, bytes_max: int) -> Iterator[PackedRecords]:
        """All of them, in order, in parts of at most `bytes_max` bytes; one that is larger is a part of its own."""
