"""Notification topics: which of them carry conversation updates, and in which shape.

Source: `notificationMappings.json` of the public Genesys Cloud SDK, whose spellings differ in case.
"""

from functools import lru_cache
from typing import Final

from msgspec import Struct

from consumer.core.reasons import IgnoredReason
from schemas.state import Media

NESTED_ARRAYS: Final[dict[str, Media]] = {
    "calls": "call",
    "callbacks": "callback",
    "chats": "chat",
    "cobrowsesessions": "cobrowse",
    "emails": "email",
    "internal_messages": "internalmessage",
    "messages": "message",
    "screen_monitorings": "screenmonitoring",
    "screenshares": "screenshare",
    "social_expressions": "socialexpression",
    "videos": "video",
}
"""The eleven arrays of a nested participant, by attribute, and the medium of each."""

_FLAT_OF_USER: Final[dict[str, Media]] = {
    "calls": "call",
    "callbacks": "callback",
    "chats": "chat",
    "cobrowsesessions": "cobrowse",
    "emails": "email",
    "messages": "message",
    "screenshares": "screenshare",
    "socialexpressions": "socialexpression",
    "videos": "video",
}
_NESTED_OF_QUEUE: Final = frozenset(("socialexpressions", "videos"))

TEMPLATES: Final = (
    "v2.users.{id}.conversations",
    "v2.routing.queues.{id}.conversations",
    *(f"v2.users.{{id}}.conversations.{suffix}" for suffix in _FLAT_OF_USER),
    *(f"v2.routing.queues.{{id}}.conversations.{suffix}" for suffix in _FLAT_OF_USER),
    "none",
    "other",
)
"""Every value of `Topic.template`: a closed set, fit for a metric label."""


class Topic(Struct, frozen=True, gc=False):
    """What the name of a topic determines."""

    template: str
    medium: Media | None = None
    """The medium of a flat body, None for a nested one."""
    ignored: IgnoredReason | None = None
    """Why a record of this topic is ignored."""


NO_TOPIC: Final = Topic("none")

_PARTS_MAX = 6  # more than any topic that is used has
_CACHED_LENGTH_MAX = 200  # the limit of Genesys Cloud for a topic id


def classify(name: str | None) -> Topic:
    """Classify a topic by its name. A body without a topic is read as nested."""
    if not name:
        return NO_TOPIC
    return _classify_cached(name) if len(name) <= _CACHED_LENGTH_MAX else _classify(name)


@lru_cache(maxsize=16_384)
def _classify_cached(name: str) -> Topic:
    return _classify(name)


def _classify(name: str) -> Topic:
    match [part.lower() for part in name.split(".", _PARTS_MAX)]:
        case ["v2", "users", _, "conversations"]:
            return Topic("v2.users.{id}.conversations")
        case ["v2", "routing", "queues", _, "conversations"]:
            return Topic("v2.routing.queues.{id}.conversations")
        case ["v2", "users", _, "conversations", suffix] if suffix in _FLAT_OF_USER:
            return Topic(f"v2.users.{{id}}.conversations.{suffix}", medium=_FLAT_OF_USER[suffix])
        case ["v2", "routing", "queues", _, "conversations", suffix] if suffix in _NESTED_OF_QUEUE:
            return Topic(f"v2.routing.queues.{{id}}.conversations.{suffix}")
        case ["v2", "routing", "queues", _, "conversations", suffix] if suffix in _FLAT_OF_USER:
            return Topic(f"v2.routing.queues.{{id}}.conversations.{suffix}", medium=_FLAT_OF_USER[suffix])
        case ["channel", "metadata"]:
            return Topic("other", ignored="heartbeat")
        case ["v2", "system", *_]:
            return Topic("other", ignored="system")
        case _:
            return Topic("other", ignored="other_topic")
