"""Which topics carry conversation updates, in which shape and medium."""

import pytest

from consumer.core.notification_topics import NO_TOPIC, TEMPLATES, classify
from schemas.state import Media
from tests.strategies import FLAT_TOPICS, NESTED_TOPICS, OTHER_TOPICS


@pytest.mark.parametrize(
    ("name", "template", "medium"),
    [
        ("v2.users.u1.conversations", "v2.users.{id}.conversations", None),
        ("V2.Users.U1.Conversations", "v2.users.{id}.conversations", None),
        ("v2.routing.queues.q1.conversations", "v2.routing.queues.{id}.conversations", None),
        ("v2.users.u1.conversations.cobrowseSessions", "v2.users.{id}.conversations.cobrowsesessions", "cobrowse"),
        ("v2.users.u1.conversations.videos", "v2.users.{id}.conversations.videos", "video"),
        ("v2.routing.queues.q1.conversations.calls", "v2.routing.queues.{id}.conversations.calls", "call"),
        ("v2.routing.queues.q1.conversations.videos", "v2.routing.queues.{id}.conversations.videos", None),
        (f"v2.users.{'u' * 300}.conversations", "v2.users.{id}.conversations", None),
    ],
)
def test_conversation_topics(name: str, template: str, medium: Media | None) -> None:
    topic = classify(name)
    assert (topic.template, topic.medium, topic.ignored) == (template, medium, None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("channel.metadata", "heartbeat"),
        ("v2.system.socket_closing", "system"),
        ("v2.users.u1.conversations.internalmessages", "other_topic"),
        ("v2.users.u1.conversations.calls.a.b.c", "other_topic"),
        ("v2.users.u1.presence", "other_topic"),
        ("?", "other_topic"),
    ],
)
def test_other_topics_are_ignored(name: str, reason: str) -> None:
    assert classify(name).ignored == reason


@pytest.mark.parametrize("name", [None, ""])
def test_no_topic(name: str | None) -> None:
    assert classify(name) is NO_TOPIC


def test_templates_are_complete() -> None:
    for name in (*NESTED_TOPICS, *FLAT_TOPICS, *OTHER_TOPICS, None):
        assert classify(name).template in TEMPLATES
