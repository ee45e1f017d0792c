"""Live communications, found page by page: all of them, once, the oldest first."""

import asyncio
import gc
import random
from itertools import islice

import msgspec
import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.core.view import communications
from consumer.runtime import live_search
from consumer.runtime.live_search import LiveSearch, Position, Wanted
from consumer.runtime.state_store import StateStore
from consumer.runtime.worker import Worker
from consumer.simulator.traffic import Traffic, records
from schemas.query import LiveCommunication
from schemas.state import ConversationState
from tests.fakes import turns
from tests.runtime.scenes import call
from tests.runtime.serving import in_partition, working
from tests.strategies import NESTED_TOPICS, at, make_record, websocket

STATE = msgspec.json.Decoder(ConversationState)
CYCLES_MAX = Rules().park_cycles_max


def traffic(count: int, partitions: int = 2) -> list[Record]:
    placed = []
    drafts = islice(records(Traffic(seed=5, conversations=60, broken=0, flat=0.3)), count)
    for offset, draft in enumerate(drafts):
        partition = 0 if draft.key is None else draft.key[-1] % partitions
        placed.append(Record("in", partition, offset, draft.timestamp_ms, draft.key, draft.value, draft.headers))
    return placed


def expected(worker: Worker, wanted: Wanted) -> list[Position]:
    """By going through everything there is."""
    found = []
    for lane in worker.lanes.values():
        for conversation_id, state in lane.store.items():
            for view in communications(STATE.decode(state), CYCLES_MAX):
                since = view.transitions[0].event_time
                if (
                    view.live
                    and wanted.media in {None, view.media}
                    and wanted.state in {None, view.state}
                    and wanted.queue_id in {None, view.queue_id}
                    and wanted.user_id in {None, view.user_id}
                    and (wanted.begun_by is None or since <= wanted.begun_by)
                    and (wanted.begun_from is None or since >= wanted.begun_from)
                ):
                    communication = view.communication_id or ""
                    found.append((since, conversation_id, view.media, view.participant_id, communication))
    return sorted(found)


def stage(store: StateStore, record: Record) -> None:
    known = step(record, Rules(), None, store.lookup).known
    assert known is not None
    store.stage((record.key or b"").decode(), known)


def position(item: LiveCommunication) -> Position:
    return item.since, item.conversation_id, item.media, item.participant_id, item.communication_id or ""


async def pages(search: LiveSearch, wanted: Wanted, limit: int) -> list[list[Position]]:
    found = []
    after: Position | None = None
    async with asyncio.timeout(30):
        while True:
            page, after = await search.page(wanted, after, limit)
            found.append([position(item) for item in page.items])
            if after is None:
                return found


async def test_every_filter_finds_what_going_through_everything_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_AHEAD", 7)
    async with working(traffic(2_000), (0, 1)) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        every = expected(worker, Wanted())
        assert len({each[2] for each in every}) > 3
        assert len(every) > 40
        first, _ = await search.page(Wanted(), None, 500)
        middle = every[len(every) // 2]
        some = next(each for each in first.items if each.queue_id is not None and each.user_id is not None)
        for wanted in (
            Wanted(),
            Wanted(media=some.media),
            Wanted(state=some.state),
            Wanted(queue_id=some.queue_id),
            Wanted(user_id=some.user_id),
            Wanted(media=some.media, state=some.state, queue_id=some.queue_id, user_id=some.user_id),
            Wanted(begun_by=middle[0]),
            Wanted(begun_from=middle[0]),
            Wanted(begun_by=middle[0], begun_from=middle[0]),
            Wanted(state="no.such.state"),
        ):
            for limit in (1, 3, 500):
                found = await pages(search, wanted, limit)
                assert [each for page in found for each in page] == expected(worker, wanted), wanted
                assert max(map(len, found)) <= limit


async def test_communications_that_began_together_are_each_found_once() -> None:
    legs = {each: [{"id": f"{each}-{number}", "state": "alerting"} for number in (1, 2)] for each in ("calls", "chats")}
    body = {"id": "c1", "participants": [{"id": "p1", **legs}, {"id": "p2", **legs}]}
    async with working([make_record(websocket(NESTED_TOPICS[0], body))]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        every = expected(worker, Wanted())
        assert (len(every), len({each[0] for each in every})) == (8, 1)
        for limit in (1, 3, 8):
            assert [each for page in await pages(search, Wanted(), limit) for each in page] == every


async def test_a_page_says_which_partitions_were_searched_and_leaves_out_those_that_are_not_open() -> None:
    shown = [in_partition(call(0, "alerting", 2, f"c{partition}"), partition) for partition in range(3)]
    async with working(shown, (0, 1, 2)) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        worker.lanes[1].phase = "opening"
        page, end = await search.page(Wanted(), None, 10)
        assert page.partitions == [0, 2]
        assert [each.conversation_id for each in page.items] == ["c0", "c2"]
        assert end is None


async def test_what_ends_between_two_pages_is_not_shown_and_nothing_else_is_lost() -> None:
    async with working([call(number, "alerting", number + 1, f"c{number}") for number in range(6)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        first, after = await search.page(Wanted(), None, 2)
        store = worker.lanes[0].store
        for conversation_id in ("c1", "c3"):
            stage(store, call(9, "disconnected", 9, conversation_id))
        store.merge(None)
        second, end = await search.page(Wanted(), after, 10)
        shown = [[each.conversation_id for each in page.items] for page in (first, second)]
        assert shown == [["c0", "c1"], ["c2", "c4", "c5"]]
        assert end is None


async def test_a_change_while_a_page_is_made_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_SLICE_KEYS", 1)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with working([call(number, "alerting", number + 1, f"c{number}") for number in range(60)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        store = worker.lanes[0].store
        page = asyncio.create_task(search.page(Wanted(), None, 500))
        ended = random.Random(3).sample(range(60), 30)
        for number in ended:
            await turns(3)
            stage(store, call(99, "disconnected", 99, f"c{number}"))
            stage(store, call(99, "alerting", 99, f"new{number}"))
            store.merge(None)
        shown = {each.conversation_id for each in (await page)[0].items}
        assert {f"c{number}" for number in range(60) if number not in ended} <= shown
        assert shown <= {f"c{number}" for number in range(60)} | {f"new{number}" for number in ended}


async def test_a_page_that_costs_too_much_ends_early_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_COST_S_MAX", 0.000_05)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with working([call(number, "alerting", number + 1, f"c{number}") for number in range(30)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        page, after = await search.page(Wanted(), None, 500)
        assert len(page.items) < 30
        assert after is not None
        monkeypatch.setattr(live_search, "_COST_S_MAX", 10.0)
        rest, end = await search.page(Wanted(), after, 500)
        assert len(page.items) + len(rest.items) == 30
        assert end is None
        assert search.spent_s > 0


async def test_a_page_gets_on_whatever_it_costs_to_put_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_COST_S_MAX", 1e-9)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with working([call(number, "alerting", number + 1, f"c{number}") for number in range(30)]) as worker:
        found = await pages(LiveSearch(worker.lanes, CYCLES_MAX), Wanted(), 500)
        assert [each for page in found for each in page] == expected(worker, Wanted())
        assert len(found) > 10


async def test_the_loop_has_its_turns_while_many_are_searched(turns_s: list[float]) -> None:
    """A quarter of a million live communications in one lane; no turn takes a quarter of what all of them take."""
    async with working([call(0, "alerting", 1)]) as worker:
        census = worker.lanes[0].store.census
        since = census._live_since["call"]
        times = [at(second + 2) for second in range(5_000)]
        for number in range(250_000):
            since[f"gone-{number:036}"] = [times[number % 5_000]]
        gc.freeze()
        await turns(1)
        turns_s.clear()
        page, after = await LiveSearch(worker.lanes, CYCLES_MAX).page(Wanted(), None, 500)
        taken_s = turns_s.copy()
        print(f"turns {len(taken_s)}, longest {max(taken_s) * 1e3:.1f} ms of {sum(taken_s) * 1e3:.0f} ms")
        assert [each.conversation_id for each in page.items] == ["c1"]
        assert after is not None
        assert len(taken_s) > 100
        assert max(taken_s) < sum(taken_s) / 4
        since.clear()
