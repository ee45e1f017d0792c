"""The story of a correction, as the demo tells it."""

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.tools.correction_story import Story, StoryFinder
from consumer.tools.replay import Replay
from tests.strategies import at
from tests.worker.scenes import call


def find(*records: Record) -> Story | None:
    replay, finder = Replay(Rules()), StoryFinder()
    for record in records:
        _, outcome = replay.apply(record)
        assert isinstance(outcome, Applied)
        for transition in outcome.transitions:
            finder.add(transition)
    return finder.found


def test_a_missed_state_is_a_story() -> None:
    story = find(call(0, "connected", 5), call(1, "alerting", 1), call(2, "disconnected", 9))
    assert story is not None
    assert [line.split(":", 1)[1].strip() for line in list(story.lines())[1:]] == [
        f"connected at {at(5)[11:-1]}",
        "the record at offset 1 of partition 0",
        f"alerting at {at(1)[11:-1]}, then connected at {at(5)[11:-1]}",
    ]


def test_events_in_order_are_no_story() -> None:
    assert find(call(0, "alerting", 1), call(1, "connected", 5), call(2, "disconnected", 9)) is None
