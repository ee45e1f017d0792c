"""Encode and decode the published state of a conversation, and read parts of it without decoding it all."""

from typing import Final

import msgspec
from msgspec import Struct

from consumer.core.conversation import UpdateCache
from schemas.state import SUMMARY_END, ConversationState, Source, Summary

_STATE = msgspec.json.Decoder(ConversationState)
_SUMMARY = msgspec.json.Decoder(Summary)
_ENCODER = msgspec.json.Encoder()
_SUMMARY_BEGIN: Final = b'{"schema":1,"snapshotTime":"'
_COUNTS: Final = len(_SUMMARY_BEGIN) + len("2026-01-01T10:05:01.123Z")
"""Where what is counted begins in the bytes of a state that this version published."""
_SOURCE_BEGIN: Final = b',"source":'
_SOURCE: Final = msgspec.json.Decoder(Source)


class StoredState(Struct, frozen=True, gc=False):
    """A conversation as it is held in memory."""

    state: ConversationState
    published: bytes
    """The state, encoded."""
    update_cache: UpdateCache
    """May be empty: it saves work and never changes a result."""


def encode(state: ConversationState, update_cache: UpdateCache) -> StoredState:
    """Encode a state."""
    return StoredState(state, _ENCODER.encode(state), update_cache)


def decode(published: bytes) -> StoredState:
    """Decode a published state. Raises msgspec.DecodeError and UnicodeDecodeError if it is none."""
    return StoredState(_STATE.decode(published), published, {})


def summary(published: bytes) -> Summary:
    """Decode only the summary at the beginning of a published state. Raises what `decode` raises.

    A restore does this for every conversation: it takes a tenth of the time of decoding the whole state.
    """
    return _SUMMARY.decode(published[: published.find(SUMMARY_END)] + b"}")


def is_counted_alike(before: bytes, after: bytes) -> bool:
    """Whether the summaries of two published states differ in nothing but the snapshot time; false where unsure."""
    end = after.find(SUMMARY_END)
    return (
        before.startswith(_SUMMARY_BEGIN)
        and after.startswith(_SUMMARY_BEGIN)
        and before.startswith(SUMMARY_END, end)
        and before[_COUNTS:end] == after[_COUNTS:end]
    )


def source_of(published: bytes) -> Source:
    """Decode the source of a published state. Raises ValueError if the bytes are none."""
    begin, end = _find_source(published)
    return _SOURCE.decode(published[begin + len(_SOURCE_BEGIN) : end])


def without_source(published: bytes) -> bytes:
    """A published state without its `source`. Raises ValueError if the bytes are none."""
    begin, end = _find_source(published)
    return published[:begin] + published[end:]


def _find_source(published: bytes) -> tuple[int, int]:
    """Where the source begins and ends. A quote within a JSON text is escaped, so nothing else looks like it."""
    begin = published.index(_SOURCE_BEGIN, published.index(SUMMARY_END))
    return begin, published.index(b"}", begin) + 1
