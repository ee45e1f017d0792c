"""The worker at a glance: what it says of lanes, live communications and the latest commits."""

import msgspec

from consumer.runtime import feed as feed_module
from consumer.runtime.board import Board, LaneRow
from consumer.runtime.bookmark import Bookmark
from consumer.runtime.feed import Feed
from consumer.runtime.ports import Effects, Output
from schemas.transition import Transition
from tests.runtime.scenes import call
from tests.runtime.serving import in_partition, working

RECORDS = [
    call(0, "alerting", 1, "c1"),
    call(1, "alerting", 2, "c2"),
    call(2, "connected", 5, "c2"),
    call(3, "disconnected", 9, "c3"),
    in_partition(call(0, "alerting", 3, "c4"), 1),
    in_partition(call(1, "hovering", 4, "c5"), 1),
]


async def operations() -> list[Output]:
    """What a lane publishes of the records of the first partition."""
    async with working(RECORDS[:4], (0,)) as worker:
        broker = worker._world.intake._broker  # type: ignore[attr-defined]
        return list(broker.partitions[0].transitions)


async def test_what_is_live_and_how_the_lanes_are() -> None:
    async with working(RECORDS, (0, 1)) as worker:
        worker.lanes[1].lag_records = 7
        glance = Board(worker.lanes, Feed()).glance()
        assert sorted(glance.live) == [("call", "alerting", 2), ("call", "connected", 1), ("call", "hovering", 1)]
        assert glance.live[0] == ("call", "alerting", 2)
        assert glance.lanes == [
            LaneRow(0, "running", 3, 0, 0, None),
            LaneRow(1, "running", 2, 7, 0, None),
        ]
        assert (glance.operations, glance.dead_letters) == ([], [])


async def test_the_latest_operations_come_first_also_those_of_one_conversation() -> None:
    outputs = await operations()
    feed = Feed()
    dead = [Output(b"k", b"v", (("cc-reason", reason),)) for reason in (b"no_time", b"late", b"late")]
    feed.add(Effects(4, Bookmark(), [], outputs, dead))
    board = Board({}, feed)
    published = [msgspec.json.decode(each.value or b"", type=Transition) for each in outputs]
    assert board.glance().operations == published[::-1]
    assert [each.to_state for each in board.operations_on("c2")] == ["connected", "alerting"]
    assert board.operations_on("none") == []
    assert board.glance().dead_letters == [("late", 2), ("no_time", 1)]


def test_only_the_latest_operations_are_kept() -> None:
    feed = Feed()
    outputs = [Output(b"c%d" % number, b"") for number in range(feed_module.KEPT_MAX + 3)]
    feed.add(Effects(1, Bookmark(), [], outputs[:2], []))
    feed.add(Effects(2, Bookmark(), [], outputs, []))
    assert len(feed.operations) == feed_module.KEPT_MAX
    assert feed.operations[0].conversation_id == "c3"
    assert feed.operations[-1].conversation_id == f"c{feed_module.KEPT_MAX + 2}"
