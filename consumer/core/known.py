"""A conversation as it is held in memory: its state, and the bytes in which that is published."""

import msgspec
from msgspec import Struct

from consumer.core.conversation import LastShown
from schemas.state import SUMMARY_END, ConversationState, Summary

_STATE = msgspec.json.Decoder(ConversationState)
_SUMMARY = msgspec.json.Decoder(Summary)
_ENCODER = msgspec.json.Encoder()


class Known(Struct, frozen=True, gc=False):
    """What is known of a conversation."""

    state: ConversationState
    published: bytes
    """The state, encoded."""
    last: LastShown
    """May be empty: it saves work, and has no say in what a snapshot changes."""


def encoded(state: ConversationState, last: LastShown) -> Known:
    """A state with its bytes."""
    return Known(state, _ENCODER.encode(state), last)


def decoded(published: bytes) -> Known:
    """A published state with its bytes. Raises msgspec.DecodeError and UnicodeDecodeError where it is none."""
    return Known(_STATE.decode(published), published, {})


def summary(published: bytes) -> Summary:
    """What a published state says of itself in its first bytes. Raises as `decoded` does, but reads no further.

    A restore does this with every conversation: it takes a tenth of the time of decoding the whole state.
    """
    return _SUMMARY.decode(published[: published.find(SUMMARY_END)] + b"}")
