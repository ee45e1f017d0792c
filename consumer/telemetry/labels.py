"""The prefix of all metric names, and the closed sets of label values."""

from typing import Final, Literal, get_args

from consumer.core.lifecycle import RANKS
from schemas.state import Media

PREFIX: Final = "conversation_"
OTHER: Final = "other"
"""Replaces every label value that is not in its set."""
MEDIA: Final[tuple[str, ...]] = get_args(Media)
STATES: Final = tuple(RANKS)
TOPICS: Final = ("input", "state", "transitions", "dead_letters")
"""The four topics by their purpose, in the order of `Settings.topics`."""
ConnectionRefusal = Literal["connections", "size", "slow", "descriptors"]
"""Why a port refused or ended a connection: too many, too large, too slow, no file descriptor left."""
RequestRefusal = Literal["unauthorized", "wrong_token", "throttled", "misdirected", "cross_site"]
"""Why the query port refused a request: it has no token and no session, a wrong token, comes from an address that has
sent too many wrong ones, names another host, or is the form of another site."""
Refusal = ConnectionRefusal | RequestRefusal
CONNECTION_REFUSALS: Final[tuple[str, ...]] = get_args(ConnectionRefusal)
REFUSALS: Final[tuple[str, ...]] = (*CONNECTION_REFUSALS, *get_args(RequestRefusal))
