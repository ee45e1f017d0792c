"""The live communications, page by page: all of them, once, the oldest first."""

import asyncio
import gc
import random
from itertools import chain, islice

import msgspec
import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.query import live_search
from consumer.query.live_search import LiveFilter, LiveSearch, Position
from consumer.query.timeline_view import communications
from consumer.simulator.traffic import Traffic, records
from consumer.worker.worker import Worker
from schemas.query import LiveCommunication
from schemas.state import ConversationState
from tests.engines import StagingStates, states_of
from tests.fakes import turns
from tests.outcomes import expect_applied
from tests.strategies import NESTED_TOPICS, at, make_record, websocket
from tests.worker.scenes import call
from tests.worker.serving import run_worker, set_partition

STATE = msgspec.json.Decoder(ConversationState)
CYCLES_MAX = Rules().park_cycles_max


def traffic(count: int, partitions: int = 2) -> list[Record]:
    traffic_records = []
    drafts = islice(records(Traffic(seed=5, conversations=60, broken=0, flat=0.3)), count)
    for offset, draft in enumerate(drafts):
        partition = 0 if draft.key is None else draft.key[-1] % partitions
        traffic_records.append(
            Record("in", partition, offset, draft.timestamp_ms, draft.key, draft.value, draft.headers)
        )
    return traffic_records


def scan(worker: Worker, live_filter: LiveFilter) -> list[Position]:
    """The positions that match, by a scan of every state."""
    positions = []
    for lane in worker.lanes.values():
        for conversation_id, state in lane.engine.states.items():
            for view in communications(STATE.decode(state), CYCLES_MAX):
                since = view.transitions[0].event_time
                if (
                    view.live
                    and live_filter.media in {None, view.media}
                    and live_filter.state in {None, view.state}
                    and live_filter.queue_id in {None, view.queue_id}
                    and live_filter.user_id in {None, view.user_id}
                    and (live_filter.begun_by is None or since <= live_filter.begun_by)
                    and (live_filter.begun_from is None or since >= live_filter.begun_from)
                ):
                    communication = view.communication_id or ""
                    positions.append((since, conversation_id, view.media, view.participant_id, communication))
    return sorted(positions)


def stage(store: StagingStates, record: Record) -> None:
    outcome = expect_applied(step(record, Rules(), None, store.lookup))
    store.stage(outcome.conversation_id, outcome.stored)


def store_of(worker: Worker) -> StagingStates:
    return states_of(worker.lanes[0].engine)


def position_of(item: LiveCommunication) -> Position:
    return item.since, item.conversation_id, item.media, item.participant_id, item.communication_id or ""


async def read_pages(search: LiveSearch, live_filter: LiveFilter, limit: int) -> list[list[Position]]:
    pages = []
    after: Position | None = None
    async with asyncio.timeout(30):
        while True:
            page, after = await search.page(live_filter, after, limit)
            pages.append([position_of(item) for item in page.items])
            if after is None:
                return pages


async def test_every_filter_finds_what_a_full_scan_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_GROUPS_MAX", 7)
    async with run_worker(traffic(2_000), (0, 1)) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        everything = scan(worker, LiveFilter())
        assert len({media for _, _, media, _, _ in everything}) > 3
        assert len(everything) > 40
        first, _ = await search.page(LiveFilter(), None, 500)
        middle = everything[len(everything) // 2]
        item = next(item for item in first.items if item.queue_id is not None and item.user_id is not None)
        for live_filter in (
            LiveFilter(),
            LiveFilter(media=item.media),
            LiveFilter(state=item.state),
            LiveFilter(queue_id=item.queue_id),
            LiveFilter(user_id=item.user_id),
            LiveFilter(media=item.media, state=item.state, queue_id=item.queue_id, user_id=item.user_id),
            LiveFilter(begun_by=middle[0]),
            LiveFilter(begun_from=middle[0]),
            LiveFilter(begun_by=middle[0], begun_from=middle[0]),
            LiveFilter(state="no.such.state"),
        ):
            for limit in (1, 3, 500):
                pages = await read_pages(search, live_filter, limit)
                assert list(chain(*pages)) == scan(worker, live_filter), live_filter
                assert max(map(len, pages)) <= limit


async def test_communications_that_began_together_are_found_once() -> None:
    legs = {name: [{"id": f"{name}-{number}", "state": "alerting"} for number in (1, 2)] for name in ("calls", "chats")}
    body = {"id": "c1", "participants": [{"id": "p1", **legs}, {"id": "p2", **legs}]}
    async with run_worker([make_record(websocket(NESTED_TOPICS[0], body))]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        everything = scan(worker, LiveFilter())
        assert (len(everything), len({since for since, *_ in everything})) == (8, 1)
        for limit in (1, 3, 8):
            assert list(chain(*await read_pages(search, LiveFilter(), limit))) == everything


async def test_a_page_names_the_partitions_searched() -> None:
    """A lane that is not open is left out."""
    alerting = [set_partition(call(0, "alerting", 2, f"c{partition}"), partition) for partition in range(3)]
    async with run_worker(alerting, (0, 1, 2)) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        worker.lanes[1].phase = "opening"
        page, end = await search.page(LiveFilter(), None, 10)
        assert page.partitions == [0, 2]
        assert [item.conversation_id for item in page.items] == ["c0", "c2"]
        assert end is None


async def test_a_page_leaves_out_what_ended_since_the_last() -> None:
    async with run_worker([call(number, "alerting", number + 1, f"c{number}") for number in range(6)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        first, after = await search.page(LiveFilter(), None, 2)
        store = store_of(worker)
        for conversation_id in ("c1", "c3"):
            stage(store, call(9, "disconnected", 9, conversation_id))
        store.merge(None)
        second, end = await search.page(LiveFilter(), after, 10)
        found = [[item.conversation_id for item in page.items] for page in (first, second)]
        assert found == [["c0", "c1"], ["c2", "c4", "c5"]]
        assert end is None


async def test_states_may_change_during_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_SLICE_KEYS", 1)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with run_worker([call(number, "alerting", number + 1, f"c{number}") for number in range(60)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        store = store_of(worker)
        page = asyncio.create_task(search.page(LiveFilter(), None, 500))
        ended = random.Random(3).sample(range(60), 30)
        for number in ended:
            await turns(3)
            stage(store, call(99, "disconnected", 99, f"c{number}"))
            stage(store, call(99, "alerting", 99, f"new{number}"))
            store.merge(None)
        found = {item.conversation_id for item in (await page)[0].items}
        assert {f"c{number}" for number in range(60) if number not in ended} <= found
        assert found <= {f"c{number}" for number in range(60)} | {f"new{number}" for number in ended}


async def test_an_expensive_page_ends_early_and_the_next_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_PAGE_S_MAX", 0.000_05)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with run_worker([call(number, "alerting", number + 1, f"c{number}") for number in range(30)]) as worker:
        search = LiveSearch(worker.lanes, CYCLES_MAX)
        page, after = await search.page(LiveFilter(), None, 500)
        assert len(page.items) < 30
        assert after is not None
        monkeypatch.setattr(live_search, "_PAGE_S_MAX", 10.0)
        rest, end = await search.page(LiveFilter(), after, 500)
        assert len(page.items) + len(rest.items) == 30
        assert end is None
        assert search.spent_s > 0


async def test_every_page_advances_however_long_sorting_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "_PAGE_S_MAX", 1e-9)
    monkeypatch.setattr(live_search, "_SLICE_S", 0.0)
    async with run_worker([call(number, "alerting", number + 1, f"c{number}") for number in range(30)]) as worker:
        pages = await read_pages(LiveSearch(worker.lanes, CYCLES_MAX), LiveFilter(), 500)
        assert list(chain(*pages)) == scan(worker, LiveFilter())
        assert len(pages) > 10


async def test_a_search_of_many_does_not_block_the_loop(turns_s: list[float]) -> None:
    """250,000 live communications in one lane: no turn of the loop takes a quarter of the whole search."""
    async with run_worker([call(0, "alerting", 1)]) as worker:
        live_index = worker.lanes[0].engine.states.live_index
        since = live_index._live_since["call"]
        times = [at(second + 2) for second in range(5_000)]
        for number in range(250_000):
            since[f"gone-{number:036}"] = [times[number % 5_000]]
        gc.freeze()
        await turns(1)
        turns_s.clear()
        page, after = await LiveSearch(worker.lanes, CYCLES_MAX).page(LiveFilter(), None, 500)
        search_s = turns_s.copy()
        print(f"turns {len(search_s)}, longest {max(search_s) * 1e3:.1f} ms of {sum(search_s) * 1e3:.0f} ms")
        assert [item.conversation_id for item in page.items] == ["c1"]
        assert after is not None
        assert len(search_s) > 100
        assert max(search_s) < sum(search_s) / 4
        since.clear()
