"""A Kafka record as a plain value."""

from msgspec import Struct


class Record(Struct, frozen=True, gc=False):
    """One record of the input topic. `timestamp_ms` is its Kafka timestamp in epoch milliseconds, -1 if it has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    unread: str = ""
    """Of a batch that could not be read and that this stands in for: why. There is no key, value or header then."""

    @property
    def next_offset(self) -> int:
        """The offset to continue from once this record is done."""
        return self.offset + 1
