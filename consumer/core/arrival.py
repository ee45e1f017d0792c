"""What a published state says of arrival, and the state without it: the rest is a function of the set of records."""

from typing import Final

import msgspec

from schemas.state import SUMMARY_END, Source

_BEGIN: Final = b',"source":'
_SOURCE: Final = msgspec.json.Decoder(Source)


def _bounds(published: bytes) -> tuple[int, int]:
    """Where the source begins and ends. A quote within a JSON text is escaped, so nothing else looks like it.

    Raises ValueError where the bytes are no published state.
    """
    begin = published.index(_BEGIN, published.index(SUMMARY_END))
    return begin, published.index(b"}", begin) + 1


def source_of(published: bytes) -> Source:
    """The last record that changed a state. Raises ValueError where the bytes are no published state."""
    begin, end = _bounds(published)
    return _SOURCE.decode(published[begin + len(_BEGIN) : end])


def without_source(published: bytes) -> bytes:
    """A published state but for `source`. Raises ValueError where the bytes are no published state."""
    begin, end = _bounds(published)
    return published[:begin] + published[end:]
