"""The answers of several workers add up: each partition once, in order, and what is missing is said."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.query import fleet as fleet_module
from consumer.query.fleet import Fleet, Member, NoAnswerError
from consumer.query.live_search import LiveFilter, Position
from consumer.query.parts import LETTERS_MAX, LivePart, position_of
from consumer.query.trends import Sample
from schemas.query import LiveCommunication, LiveCommunications
from tests.query.fleets import ListWorker, fleet_of, live_communication, make_operation

Owned = dict[int, list[LiveCommunication]]


def owned(*partitions: int, each: int = 2) -> Owned:
    """Communications of partitions, of which some began together."""
    return {
        partition: [live_communication(10 * partition + number, (partition + number) % 7) for number in range(each)]
        for partition in partitions
    }


def positions(*workers: ListWorker) -> list[Position]:
    return sorted(position_of(item) for worker in workers for items in worker.live.values() for item in items)


async def read_page(fleet: Fleet, after: Position | None = None, limit: int = 500) -> LiveCommunications:
    return (await fleet.live(LiveFilter(), after, limit))[0]


def reasons(page: Any) -> list[tuple[list[int], str]]:
    return [(missing.partitions, missing.reason) for missing in page.missing]


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=9), min_size=1, max_size=5),
    st.integers(1, 7),
    st.lists(st.integers(1, 4), min_size=5, max_size=5),
)
async def test_pages_hold_every_communication_once_in_order(
    since: list[list[int]], limit: int, page_max: list[int]
) -> None:
    """However many each worker has, and wherever its pages end early."""
    workers = []
    for partition, seconds in enumerate(since):
        items = [live_communication(100 * partition + number, second) for number, second in enumerate(seconds)]
        workers.append(ListWorker({partition: items}))
        workers[-1].page_max = page_max[partition]
    fleet, _, _ = fleet_of(*workers)
    found: list[Position] = []
    after: Position | None = None
    for _ in range(100):
        page, after = await fleet.live(LiveFilter(), after, limit)
        assert (page.complete, page.partitions, page.missing) == (True, list(range(len(since))), [])
        assert len(page.items) <= limit
        found += [position_of(item) for item in page.items]
        if after is None:
            break
    assert found == positions(*workers)


@given(st.permutations([0, 1, 2, 3]), st.integers(1, 5))
def test_parts_add_up_in_any_order(order: list[int], limit: int) -> None:
    """To no more than a page."""
    items = [[live_communication(10 * number + n, (number + 3 * n) % 11) for n in range(4)] for number in range(4)]
    parts = []
    for number, listed in enumerate(items):
        listed.sort(key=position_of)
        page = listed[:limit]
        parts.append(LivePart(1, [number], page, position_of(page[-1]) if limit < len(listed) else None, limit))
    total = parts[order[0]]
    for number in order[1:]:
        total = total.add(parts[number])
    everything = sorted(position_of(item) for listed in items for item in listed)
    assert [position_of(item) for item in total.items] == everything[:limit]
    assert total.end == everything[limit - 1]


async def test_overview_adds_up_what_workers_count() -> None:
    workers = [ListWorker(owned(0, 1, each=12)), ListWorker(owned(2)), ListWorker({})]
    workers[1].live = {2: [live_communication(20, 3), live_communication(21, 1, "connected")]}
    fleet, _, _ = fleet_of(*workers)
    found = await fleet.overview()
    overview = found.overview
    assert (overview.complete, overview.partitions, overview.missing, found.workers) == (True, [0, 1, 2], [], 2)
    assert {(count.media, count.state): count.count for count in overview.live} == {
        ("call", "alerting"): 25,
        ("call", "connected"): 1,
    }
    assert [lane.partition for lane in overview.lanes] == [0, 1, 2]
    assert [(count.reason, count.count) for count in overview.dead_letters] == [("late", 1 + 3)]
    assert found.trend == [Sample(slot, 2, slot, 4, 6) for slot in (1, 2)]
    assert [letter.committed_ms for letter in found.letters] == sorted(
        (letter.committed_ms for letter in found.letters), reverse=True
    )
    assert len(found.letters) == LETTERS_MAX
    published = [(step.source.offset, step.source.partition) for step in overview.transitions]
    assert published == sorted(published, reverse=True)
    assert len(published) == 30
    assert [position_of(item) for item in found.oldest] == positions(*workers)[:10]
    assert workers[2].asked == 0, "a worker that owns nothing is not asked"


async def test_many_who_look_at_once_share_an_overview() -> None:
    workers = [ListWorker(owned(0)), ListWorker(owned(1))]
    fleet, _, _ = fleet_of(*workers)
    await asyncio.gather(*(fleet.overview() for _ in range(20)))
    assert workers[1].asked == 1


@pytest.mark.parametrize(
    ("generations", "counted"),
    [
        ((1, 2, 2), [1, 2, 3]),
        ((2, 1, 2), [0, 1, 3]),
        ((2, 1, 1), [0, 1]),
        ((1, 1, 2), [3]),
        ((-1, 1, 1), [1, 2, 3]),
    ],
)
async def test_only_the_newest_generation_counts(generations: tuple[int, ...], counted: list[int]) -> None:
    """Two workers tell of a partition that has moved. The one that does not know that yet counts nothing."""
    held = ((0, 1), (1, 2), (3,))
    workers = [ListWorker(owned(*partitions), at) for partitions, at in zip(held, generations, strict=True)]
    for worker, delay_s in zip(workers, (0.0, 0.002, 0.001), strict=True):
        worker.delay_s = delay_s
    fleet, group, _ = fleet_of(*workers)
    group.members = [
        Member("worker-0", "", [0]),
        Member("worker-1", "10.0.0.1:8081", [1, 2]),
        Member("worker-2", "10.0.0.2:8081", [3]),
    ]
    page = await read_page(fleet)
    newest = [worker for worker in workers if worker.generation == max(generations)]
    assert [position_of(item) for item in page.items] == positions(*newest)
    assert (page.complete, page.partitions) == (False, counted)
    assert {partition for missing in page.missing for partition in missing.partitions} == {*range(4)} - {*counted}
    assert {reason for _, reason in reasons(page)} == {
        "its worker does not know the newest generation of the group yet"
    }


async def test_a_partition_of_two_workers_counts_once() -> None:
    """Which a group does not do; an answer that tells it is not added."""
    workers = [ListWorker(owned(0, 1)), ListWorker(owned(1, 2))]
    fleet, _, _ = fleet_of(*workers)
    page = await read_page(fleet)
    assert Counter(item.conversation_id for item in page.items).most_common(1)[0][1] == 1
    assert (page.complete, page.partitions) == (False, [0, 1])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"failure": NoAnswerError("it cannot be reached")}, "it cannot be reached"),
        ({"delay_s": 30.0}, "no answer within 0.05 s"),
        ({"body": b"<html>"}, "its answer is that of another version"),
        ({"body": b'{"generation":1}'}, "its answer is that of another version"),
        ({"body": b"[" * 100_000}, "its answer is that of another version"),
        ({"body": b"\xff"}, "its answer is that of another version"),
        ({"live": {}}, "it is not open: it is being restored, or it moves"),
        ({"generation": -1}, "its worker does not know the newest generation of the group yet"),
    ],
)
async def test_a_worker_without_an_answer_is_named(
    change: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its partitions and the reason; what the others count is all there."""
    monkeypatch.setattr(fleet_module, "_LIVE_S", 0.05)
    monkeypatch.setattr(fleet_module, "_OVERVIEW_S", 0.05)
    workers = [ListWorker(owned(0)), ListWorker(owned(1, 3)), ListWorker(owned(2))]
    fleet, _, _ = fleet_of(*workers)
    if "delay_s" not in change:
        monkeypatch.setattr(fleet_module, "_LIVE_S", 30.0)
        monkeypatch.setattr(fleet_module, "_OVERVIEW_S", 30.0)
    for name, value in change.items():
        setattr(workers[1], name, value)
    page = await read_page(fleet)
    assert [position_of(item) for item in page.items] == positions(workers[0], workers[2])
    overview = (await fleet.overview()).overview
    for answer in (page, overview):
        assert (answer.complete, answer.partitions) == (False, [0, 2])
        assert reasons(answer) == [([1, 3], expected)]
        assert answer.missing[0].worker == "10.0.0.1:8081"


async def test_a_silent_worker_holds_up_one_answer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a time it is not asked again, and named all the same."""
    monkeypatch.setattr(fleet_module, "_LIVE_S", 0.05)
    workers = [ListWorker(owned(0)), ListWorker(owned(1))]
    workers[1].delay_s = 30.0
    fleet, _, _ = fleet_of(*workers)
    expected = [([1], "no answer within 0.05 s")]
    assert reasons(await read_page(fleet)) == expected
    for _ in range(3):
        assert reasons(await read_page(fleet)) == expected
    assert workers[1].asked == 1
    monkeypatch.setattr(fleet_module, "_LIVE_S", 30.0)
    workers[1].delay_s = 0.0
    fleet._silences = {address: (0.0, silence) for address, (_, silence) in fleet._silences.items()}
    assert (await read_page(fleet)).complete


async def test_a_member_without_an_address_is_named() -> None:
    """One of the version before, or one whose query port is on loopback."""
    workers = [ListWorker(owned(0)), ListWorker(owned(1))]
    fleet, group, _ = fleet_of(*workers)
    group.members[1] = Member("worker-1", "", [1])
    assert reasons(await read_page(fleet)) == [([1], "its worker advertises no address: CC_QUERY_ADVERTISED")]
    assert workers[1].asked == 0


async def test_nothing_is_whole_while_the_group_is_not_known() -> None:
    """Even if this worker owns all that it knows of: others may have it by now."""
    workers = [ListWorker(owned(0, 1))]
    fleet, group, _ = fleet_of(*workers)
    assert (await read_page(fleet)).complete
    group.problem = "the group is not stable (PreparingRebalance)"
    page = await read_page(fleet)
    assert (page.complete, page.partitions, reasons(page)) == (False, [0, 1], [([], group.problem)])
    workers[0].live = {}
    assert reasons(await read_page(fleet)) == [([0, 1], group.problem)]
    group.problem, group.total, group.members = "", None, []
    page = await read_page(fleet)
    assert reasons(page) == [([], "it is not known yet how many partitions there are")]
    group.total = 2
    assert reasons(await read_page(fleet)) == [([0, 1], "this broker does not tell who owns it")]
    group.members = [Member("worker-0", "", [0])]
    assert ([1], "no worker owns it") in reasons(await read_page(fleet))


async def test_a_worker_that_is_no_member_any_more_counts_nothing_of_its_own() -> None:
    """As after a stop that outlasted its session: others may own its partitions, and not answer."""
    workers = [ListWorker(owned(0, 1)), ListWorker(owned(0, 1))]
    fleet, group, _ = fleet_of(*workers)
    group.members = [Member("worker-1", "10.0.0.1:8081", [0, 1])]
    workers[1].failure = NoAnswerError("it cannot be reached")
    page = await read_page(fleet)
    assert (page.complete, page.items) == (False, [])
    assert reasons(page) == [([0, 1], "it cannot be reached")]


async def test_workers_are_asked_side_by_side_within_a_bound() -> None:
    workers = [ListWorker(owned(partition)) for partition in range(40)]
    for worker in workers:
        worker.delay_s = 0.001
    fleet, _, others = fleet_of(*workers)
    page = await read_page(fleet)
    assert (page.complete, len(page.items)) == (True, 80)
    assert 1 < others.running_max <= 8


async def test_the_owner_of_a_partition_tells_what_it_published() -> None:
    workers = [ListWorker(owned(0)), ListWorker(owned(1)), ListWorker(owned(2))]
    fleet, group, _ = fleet_of(*workers)
    for partition in range(3):
        recent = await fleet.recent("c1", partition)
        assert recent is not None
        assert [letter.reason for letter in recent.letters] == ["late"]
        assert recent.operations == [make_operation(0, 1)]
    assert [worker.asked for worker in workers] == [0, 1, 1]
    workers[1].failure = NoAnswerError("it cannot be reached")
    workers[2].body = b"{}"
    assert [await fleet.recent("c1", partition) for partition in (1, 2)] == [None, None]
    assert await fleet.recent("\udcff", 2) is None
    group.members[1] = Member("worker-1", "", [1])
    workers[1].failure = None
    assert await fleet.recent("c1", 1) is None


async def test_an_owner_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "_RECENT_S", 0.01)
    workers = [ListWorker(owned(0)), ListWorker(owned(1))]
    fleet, _, _ = fleet_of(*workers)
    workers[1].delay_s = 60
    assert await fleet.recent("c1", 1) is None
