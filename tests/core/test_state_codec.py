"""A published state, and the parts of it that are read without decoding it all."""

import msgspec
import pytest

from consumer.core import state_codec
from schemas.state import ConversationState, Source
from tests.core.play import play
from tests.strategies import make_record

TRAP = 'p"},"conversationId":"x","source":{"offset":9}'
"""An id that looks like the parts that are searched for; in JSON its quotes are escaped."""


def publish() -> bytes:
    body = {"id": "c1", "participants": [{"id": TRAP, "userId": TRAP, "calls": [{"id": TRAP, "state": "connected"}]}]}
    return play([make_record(body, offset=7)]).states["c1"]


def test_a_decoded_state_encodes_to_its_bytes() -> None:
    published = publish()
    stored = state_codec.decode(published)
    assert (stored.published, stored.update_cache) == (published, {})
    assert state_codec.encode(stored.state, {}).published == published


def test_parts_of_a_state_are_found() -> None:
    published = publish()
    state = msgspec.json.decode(published, type=ConversationState)
    assert state_codec.source_of(published) == state.source == Source("conversation-updates", 0, 7)
    summary = state_codec.summary(published)
    assert (summary.snapshot_time, summary.live, summary.communications, summary.live_since) == (
        state.snapshot_time,
        1,
        {"call": {"connected": 1}},
        state.live_since,
    )
    without_source = msgspec.json.decode(state_codec.without_source(published))
    assert without_source | {"source": msgspec.to_builtins(state.source)} == msgspec.json.decode(published)


@pytest.mark.parametrize("value", [b"", b"{}", b"null", b'{"schema":1,"conversationId":"c1"}', b"\xff"])
def test_other_bytes_have_no_source(value: bytes) -> None:
    for read in (state_codec.source_of, state_codec.without_source):
        with pytest.raises(ValueError, match="subsection not found"):
            read(value)


def test_a_summary_of_another_schema_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        state_codec.summary(publish().replace(b'"schema":1', b'"schema":2'))


def test_states_are_counted_alike_if_only_later_parts_and_the_time_differ() -> None:
    published = publish()
    end = published.index(b',"conversationId"')
    later = published.replace(b'"snapshotTime":"2026', b'"snapshotTime":"2027', 1)
    assert state_codec.is_counted_alike(published, later[:end] + b',"conversationId":"other"}')
    for other in (
        published.replace(b'"live":1', b'"live":2'),
        published.replace(b'"liveSince"', b'"live_since"', 1),
        published.replace(b'"schema":1,', b'"schema": 1,', 1),
        published[:end],
        b"",
    ):
        assert not state_codec.is_counted_alike(published, other)
        assert not state_codec.is_counted_alike(other, published)
