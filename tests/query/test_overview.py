"""The overview: lanes, live communications and the latest operations."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.query.overview import OverviewReader
from consumer.query.parts import Operation, RecentPart
from consumer.query.recent_activity import KEPT_MAX, RecentActivity
from consumer.worker.lane_status import AwaitedPartition
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Effects
from consumer.worker.standstill import Standstill
from schemas.query import DeadLetterCount, LaneView, LiveCount
from schemas.transition import Transition
from tests.worker.scenes import call
from tests.worker.serving import run_worker, set_partition

RECORDS = [
    call(0, "alerting", 1, "c1"),
    call(1, "alerting", 2, "c2"),
    call(2, "connected", 5, "c2"),
    call(3, "disconnected", 9, "c3"),
    set_partition(call(0, "alerting", 3, "c4"), 1),
    set_partition(call(1, "hovering", 4, "c5"), 1),
]


def lane(
    partition: int,
    phase: str,
    conversations: int,
    lag_records: int | None,
    restore_records: int | None,
    problem: str | None,
    worker: str | None = None,
) -> LaneView:
    return LaneView(
        partition=partition, worker=worker, phase=phase, conversations=conversations,
        lag_records=lag_records, restore_records=restore_records, problem=problem,
    )  # fmt: skip


async def operations() -> list[Output]:
    """The operations that a lane publishes for the records of the first partition."""
    async with run_worker(RECORDS[:4], (0,)) as worker:
        broker = worker._context.input_consumer._broker  # type: ignore[attr-defined]
        return list(broker.partitions[0].transitions)


async def test_overview_counts_live_communications_and_lists_lanes() -> None:
    async with run_worker(RECORDS, (0, 1)) as worker:
        worker.lanes[1].lag_records = 7
        reader = OverviewReader(worker.lanes, RecentActivity(), address=lambda: "10.0.0.1:8081")
        overview = reader.read(3, [])
        counts = [(count.media, count.state, count.count) for count in overview.live]
        assert sorted(counts) == [("call", "alerting", 2), ("call", "connected", 1), ("call", "hovering", 1)]
        assert counts[0] == ("call", "alerting", 2)
        assert overview.lanes == [
            lane(0, "running", 3, 0, 0, None, "10.0.0.1:8081"),
            lane(1, "running", 2, 7, 0, None, "10.0.0.1:8081"),
        ]
        assert (overview.operations, overview.dead_letters) == ([], [])
        assert (overview.generation, overview.partitions) == (3, [0, 1])
        worker.lanes[1].phase = "opening"
        overview = reader.read(3, [])
        assert (overview.partitions, sum(count.count for count in overview.live)) == ([0], 2)
        assert [row.partition for row in overview.lanes] == [0, 1]
        worker.lanes[1].phase = "running"


async def test_states_beyond_those_that_can_be_listed_count_as_other() -> None:
    records = [call(number, f"state-{number}", 1, f"c{number}") for number in range(140)]
    async with run_worker(records, (0,)) as worker:
        overview = OverviewReader(worker.lanes, RecentActivity()).read(1, [])
        assert len(overview.live) == 129
        assert overview.live[-1] == LiveCount("call", "other", 12)
        twice = overview.add(overview).live
        assert (len(twice), twice[-1]) == (129, LiveCount("call", "other", 24))
        assert sum(count.count for count in twice) == 280


def test_partition_that_awaits_an_assignment_has_a_row() -> None:
    still = Standstill("unread", "the group rebalances", 0.0)
    awaited = {3: AwaitedPartition(3, 7, 12, still), 1: AwaitedPartition(1, 7, 0, None)}
    assert OverviewReader({}, RecentActivity(), awaited=awaited).read(1, []).lanes == [
        lane(1, "rebalancing", 0, 0, None, None),
        lane(3, "rebalancing", 0, 12, None, "the group rebalances"),
    ]


async def test_the_latest_operations_come_first() -> None:
    outputs = await operations()
    recent_activity = RecentActivity(lambda: 7)
    dead_letters = [Output(b"k", b"v", (("cc-reason", reason),)) for reason in (b"no_time", b"late", b"late")]
    recent_activity.add(Effects(4, OffsetMetadata(), [], outputs, dead_letters), CommitStats())
    reader = OverviewReader({}, recent_activity)
    published = [msgspec.json.decode(output.value or b"", type=Transition) for output in outputs]
    assert reader.read(1, []).operations == [Operation(7, operation) for operation in published[::-1]]
    assert [operation.transition.to_state for operation in reader.read_recent("c2").operations] == [
        "connected",
        "alerting",
    ]
    assert reader.read_recent("none") == RecentPart([], [])
    assert reader.read(1, []).dead_letters == [DeadLetterCount("late", 2), DeadLetterCount("no_time", 1)]


def test_dead_letters_are_of_the_id_that_their_key_spells() -> None:
    recent_activity = RecentActivity()
    keys = (b"c1", b'"c1"', b"\0\0\0\0\5c1", b'{"schema":null,"payload":"c1"}', b'"c1', b"c2")
    recent_activity.add(Effects(1, OffsetMetadata(), [], [], [Output(key, b"") for key in keys]), CommitStats())
    assert len(OverviewReader({}, recent_activity).read_recent("c1").letters) == 4


@given(st.lists(st.integers(0, 2) | st.integers(0, KEPT_MAX * 2), max_size=9))
def test_only_the_latest_operations_are_kept(sizes: list[int]) -> None:
    """Whatever the sizes of the commits."""
    recent_activity, outputs = RecentActivity(), [Output(b"c%d" % number, b"") for number in range(sum(sizes))]
    begin = 0
    for size in sizes:
        recent_activity.add(Effects(1, OffsetMetadata(), [], outputs[begin : begin + size], []), CommitStats())
        begin += size
    assert [operation.conversation_id for operation in recent_activity.operations] == [
        f"c{number}" for number in range(begin)[-KEPT_MAX:]
    ]


def test_commits_are_forgotten_once_later_ones_hold_enough() -> None:
    recent_activity, large = RecentActivity(), [Output(b"c", b"")] * KEPT_MAX
    for _ in range(3):
        recent_activity.add(Effects(1, OffsetMetadata(), [], [Output(b"c", b"")], []), CommitStats())
        recent_activity.add(Effects(1, OffsetMetadata(), [], large, []), CommitStats())
    assert [operations for _, operations in recent_activity._commits] == [large]
