"""The live page: sessions and headers over HTTP, and what people do with it in a real browser."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from consumer.core import timestamps
from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.query.fleet import Member
from consumer.web import live_page
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Effects, RetriableError
from consumer.worker.standstill import Standstill
from tests.browser import PHONE, open_browser, open_page
from tests.engines import states_of
from tests.query.fleets import OWN
from tests.strategies import at, make_record
from tests.web.test_query_port import MARK, TOKEN, Site, serving
from tests.worker.scenes import call

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


def apply(site: Site, record: Record) -> Applied:
    """Do what a lane does with a record, up to its commit."""
    store = states_of(site.worker.lanes[0].engine)
    outcome = step(record, Rules(), None, store.lookup)
    assert isinstance(outcome, Applied)
    store.stage(outcome.conversation_id, outcome.stored)
    store.merge(None)
    key = outcome.conversation_id.encode()
    outputs = [Output(key, msgspec.json.encode(transition)) for transition in outcome.transitions]
    dead = [Output(b"k", b"v", (("cc-reason", b"bad_json"),))]
    stats = CommitStats()
    stats.retracted.update(transition.media for transition in outcome.transitions if transition.op == "retract")
    site.recent_activity.add(Effects(record.next_offset, OffsetMetadata(), [], outputs, dead), stats)
    return outcome


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as started:
        yield started


@asynccontextmanager
async def site_at(token: str = "") -> AsyncIterator[tuple[Site, str]]:
    async with serving(token) as site:
        yield site, f"http://127.0.0.1:{site.port}"


def as_shown(moment: str) -> str:
    """A published time as the page shows it."""
    return moment.replace("T", " ").removesuffix("Z")


def minutes_before_now(seconds: float) -> str:
    """How long ago the second of a record is, in whole minutes of the page's clock."""
    return f"{int(3_600 - seconds) // 60} min"


async def assert_accessible(opened: Page) -> None:
    """Assert that axe finds no violation of WCAG 2.2 AA or of its best practices."""
    results = await Axe().run(opened)
    assert results.response["violations"] == [], results.generate_report()
    wider = await opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, "the page is wider than the screen"


async def save_screenshot(opened: Page, name: str) -> None:
    """Save a picture if the environment names a folder for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        await opened.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


async def test_hostile_records_do_not_swell_pages() -> None:
    """Texts as long as a record may hold, and hundreds of unknown states in each of sixty conversations."""
    async with site_at() as (site, url):
        store = states_of(site.worker.lanes[0].engine)
        for number in range(60):
            text = "".join(chr(0x1F600 + (number + index) % 80) for index in range(25_000 if number % 2 else 250))
            calls = [{"id": f"m{index}", "state": f"{index} {text}"[:250]} for index in range(1 if number % 2 else 60)]
            participant = {"id": text, "userId": text, "queueId": text, "calls": calls}
            record = make_record(
                {"id": f"c{number}", "participants": [participant]}, key=f"c{number}", seconds=number, offset=number
            )
            if isinstance(step(record, Rules(), None, store.lookup), Applied):
                apply(site, record)
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/api/v1/communications?limit=100", "/conversations/c0"):
                async with session.get(url + path) as answer:
                    assert answer.status == 200
                    assert len(await answer.read()) < 1 << 20, path


async def test_page_says_how_old_it_is_while_kafka_is_gone(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        status = opened.get_by_role("status")
        await opened.goto(url)
        await expect(status).to_have_text("Updating.")
        site.worker.lanes[0].standstill = Standstill("leader", "no broker leads the partition", 0.0)
        await expect(opened.locator("#troubled tr.bad")).to_contain_text("no broker leads the partition")
        await expect(opened.locator("#verdict")).to_contain_text("Not read: 1 of 1 partition")
        site.worker.note_connection(RetriableError("connecting to kafka:9092: TimeoutError"))
        assert site.worker.outage is not None
        since = as_shown(timestamps.to_text(site.worker.outage.since_ms))
        await expect(status).to_have_text(f"Kafka does not answer: this page is from {since} or before.")
        await expect(opened.locator("#verdict")).to_contain_text("Kafka does not answer this worker")
        await expect(opened.locator("#health")).to_contain_text("cut off")
        site.worker.note_connection(None)
        await expect(status).to_have_text("Updating.")


async def test_a_conversation_is_followed_live_and_in_the_past(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        await opened.goto(url)
        await opened.get_by_label("Conversation id").fill("live-2")
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("heading", name="live-2")).to_be_visible()
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        await expect(opened.locator("#conversation")).to_contain_text(
            "Live: call m1 of participant p1 is alerting since"
        )
        await opened.get_by_text("Details").click()
        cells = opened.locator("#conversation tbody tr")
        await expect(cells).to_have_count(1)
        apply(site, call(50, "connected", 40, "live-2"))
        await expect(cells).to_have_count(2)
        await expect(cells.last).to_contain_text("alerting")
        await expect(cells.last).to_contain_text(as_shown(at(40)))
        apply(site, call(51, "connected", 20, "live-2"))
        correction = opened.locator("li.correction").first
        await expect(correction).to_contain_text("corrected:")
        await expect(correction).to_contain_text(as_shown(at(40)))
        await expect(opened.locator(".bar .mark")).to_have_count(1)
        await expect(opened.locator(".records > li").first).to_contain_text("Offset 51, committed 0 s ago")
        await expect(cells.last).to_contain_text(as_shown(at(20)))
        await expect(opened.locator("details[open]"), "details stay open").to_have_count(1)
        await expect(opened.locator("summary"), "and keep the focus").to_be_focused()
        await expect(opened.locator(".bar")).to_have_attribute(
            "aria-label", re.compile(f"^alerting from {at(12)}, for 8")
        )
        await save_screenshot(opened, "conversation")
        await assert_accessible(opened)
        apply(site, call(52, "disconnected", 60, "live-2", disconnectType="peer"))
        await expect(opened.locator("#conversation")).to_contain_text("Over: 0 of 1 communications have not ended.")
        await expect(opened.locator("#conversation")).to_contain_text("is disconnected (peer) since")
        await opened.get_by_label("State as of (UTC)").fill(at(30))
        await opened.get_by_role("button", name="Show").click()
        await expect(opened.locator("#conversation")).to_contain_text("It was live")
        await expect(opened.get_by_role("status")).to_contain_text(f"As of {as_shown(at(30))}")
        await opened.get_by_label("State as of (UTC)").fill(at(11.999))
        await opened.get_by_role("button", name="Show").click()
        await expect(opened.locator("#conversation")).to_contain_text(f"It had not begun at {as_shown(at(11.999))}.")


async def test_the_front_page_keeps_up_with_the_worker(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        await opened.goto(url)
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        await expect(opened.locator("#verdict")).to_have_text(
            "All is well. 1 of 1 partitions are counted, of 1 worker."
        )
        await expect(opened.locator("#live .total")).to_have_text("5 live")
        call_row = opened.locator("#live tr").filter(has_text="call").first
        await expect(call_row).to_contain_text("alerting 5")
        await expect(opened.locator("#live tbody tr")).to_have_count(11)
        await expect(opened.locator("#lanes")).to_contain_text("reading")
        await expect(opened.locator("footer")).to_contain_text("python engine")
        apply(site, call(50, "connected", 40, "live-1"))
        apply(site, call(51, "connected", 20, "live-1"))
        await expect(opened.locator("#feed tr.correction")).to_contain_text("corrected: alerting → connected")
        await expect(opened.locator("#dead")).to_contain_text("bad_json")
        await expect(opened.locator("#dead")).to_contain_text("bad_json")
        await expect(call_row).to_contain_text("connected 1")
        site.worker.lanes[0].phase = "blocked"
        await expect(opened.locator("#troubled tr.bad")).to_contain_text("stopped")
        await save_screenshot(opened, "board")
        await assert_accessible(opened)
        site.worker.lanes[0].phase = "running"
        await opened.get_by_role("button", name="Pause").click()
        await expect(opened.get_by_role("status")).to_have_text("Paused.")
        before = await opened.locator("#feed").inner_html()
        apply(site, call(52, "disconnected", 60, "live-1"))
        await asyncio.sleep(2 * live_page._TICK_S)
        assert await opened.locator("#feed").inner_html() == before
        await opened.get_by_role("button", name="Pause").click()
        await expect(opened.locator("#feed")).to_contain_text("connected → disconnected")


async def test_trends_show_what_was_sampled(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        apply(site, call(50, "connected", 40, "live-1"))
        apply(site, call(51, "connected", 20, "live-1"))
        site.overviews.trends.sample()
        await opened.goto(url)
        cards = opened.locator("#health .card")
        await expect(cards).to_contain_text(["up to date", "0", "2 in the last minute", "1"])
        label = cards.last.get_by_role("img", name="Most corrections in 5 s: 1; at the end 1.")
        await expect(label).to_be_visible()
        await expect(opened.locator("#verdict")).to_contain_text("2 records could not be used in the last minute")


async def test_ages_are_relative_and_times_exact_in_the_chosen_zone(browser: Browser) -> None:
    async with site_at() as (_, url), open_page(browser, timezone_id="Asia/Kolkata") as opened:
        await opened.goto(url)
        oldest = opened.locator("#oldest time").first
        await expect(oldest).to_have_text(minutes_before_now(10))
        await expect(oldest).to_have_attribute("title", f"{as_shown(at(10))} UTC")
        zone = opened.get_by_role("button", name="Times:")
        await expect(zone).to_have_text("Times: UTC")
        await zone.click()
        await expect(zone).to_have_text(re.compile("Times: Asia/(Kolkata|Calcutta)"))
        local = as_shown(at(10 + 5.5 * 3_600))
        await expect(oldest).to_have_attribute("title", re.compile(f"{re.escape(local)} Asia/"))
        await opened.reload()
        await expect(oldest).to_have_attribute("title", re.compile(f"{re.escape(local)} Asia/"))


async def test_rows_keep_still_under_the_pointer(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        await opened.goto(url)
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        await opened.locator("#oldest tbody tr").first.hover()
        conversations = opened.locator("#oldest tbody a")
        before = await conversations.all_inner_texts()
        apply(site, call(50, "disconnected", 40, "live-0"))
        await expect(opened.locator("#oldest")).to_have_class("hold held")
        assert await conversations.all_inner_texts() == before, "only the ages go on"
        await opened.mouse.move(0, 0)
        await expect(opened.locator("#oldest tbody tr")).to_have_count(4)
        await expect(opened.locator("#oldest")).to_have_class("hold")


async def test_a_whole_id_is_copied(browser: Browser) -> None:
    async with (
        site_at() as (site, url),
        open_page(browser, permissions=["clipboard-read", "clipboard-write"], **PHONE) as opened,
    ):
        long_id = "5f0c1a52-9f0e-4a3e-8a44-0d3c6f1b7e21"
        apply(site, call(50, "connected", 0, long_id))
        await opened.goto(url)
        row = opened.locator("#oldest tr").filter(has_text=long_id)
        await row.get_by_role("button", name="Copy this id").click()
        await opened.wait_for_function("async (id) => await navigator.clipboard.readText() === id", arg=long_id)


async def test_page_names_the_partitions_that_it_does_not_count(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser, **PHONE) as opened:
        await opened.goto(url)
        fleet = opened.locator("#verdict")
        await expect(fleet).to_have_text("All is well. 1 of 1 partitions are counted, of 1 worker.")
        site.group.total = 5
        site.group.members = [Member(OWN, "", [0]), Member("other", "", [1, 2, 4])]
        await expect(fleet).to_contain_text("Incomplete. 1 of 5 partitions are counted, of 1 worker.")
        await expect(opened.locator("#live .total")).to_have_text("5 live, as far as it is known")
        await expect(fleet.get_by_role("listitem")).to_have_text(
            [
                "Partitions 1–2, 4: its worker advertises no address: CC_QUERY_ADVERTISED",  # noqa: RUF001 - as shown
                "Partition 3: no worker owns it",
            ]
        )
        await assert_accessible(opened)
        await save_screenshot(opened, "board-incomplete")


async def test_it_works_by_keyboard_and_updates_keep_the_focus(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        await opened.goto(url)
        await opened.keyboard.press("Tab")
        await expect(opened.get_by_role("link", name="Skip to the content")).to_be_focused()
        reached = []
        for _ in range(18):
            await opened.keyboard.press("Tab")
            reached.append(await opened.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"id", "zone", "pause", "live-0", "live-4", "All partitions, by worker"} <= set(reached)
        await opened.locator("#oldest a").first.focus()
        before = await opened.locator("#oldest").inner_text()
        apply(site, call(50, "connected", 40, "live-0"))
        await expect(opened.locator("#oldest")).not_to_have_text(before, use_inner_text=True)
        await expect(opened.locator("#oldest a").first).to_be_focused()
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("heading", name="live-0")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_on_a_phone_and_in_the_dark(browser: Browser, scheme: Any) -> None:
    async with site_at() as (site, url):
        apply(site, call(50, "connected", 40, "live-1"))
        apply(site, call(51, "connected", 20, "live-1"))
        async with open_page(browser, color_scheme=scheme, **PHONE) as opened:
            for name, path in (("board", "/"), ("conversation", "/conversations/live-1")):
                await opened.goto(url + path)
                await expect(opened.get_by_role("status")).to_have_text("Updating.")
                await assert_accessible(opened)
                await save_screenshot(opened, f"{name}-phone-{scheme}")
            ink, paper = await opened.evaluate(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            darker = sum(map(int, re.findall(r"\d+", paper))) < sum(map(int, re.findall(r"\d+", ink)))
            assert darker == (scheme == "dark")


async def test_an_unknown_conversation_has_a_page(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser, refused=404) as opened:
        site.home = 0
        await opened.goto(f"{url}/conversations/none")
        await expect(opened.get_by_role("alert")).to_have_text("No conversation with this id is known: none")
        await expect(opened.locator("code")).to_have_text("conversation-consumer inspect none --why")
        await assert_accessible(opened)


async def test_a_conversation_has_its_dead_letters(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_page, "_AGAIN_S", 0.0)
    async with site_at() as (site, url), open_page(browser) as opened:
        headers = {"cc-reason": "wrong_type", "cc-detail": "participants[0]: Expected `array`",
                   "cc-source-partition": "0", "cc-source-offset": "77"}  # fmt: skip
        letter = Output(b"live-1", b"v", [(name, text.encode()) for name, text in headers.items()])
        await opened.goto(f"{url}/conversations/live-1")
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        site.recent_activity.add(Effects(78, OffsetMetadata(), [], [], [letter]), CommitStats())
        await opened.get_by_role("link", name="Its dead letters: 1").click()
        row = opened.locator("#letters tbody tr")
        await expect(row.locator("td")).to_have_text(
            ["0 s", "wrong_type", "participants[0]: Expected `array`", "partition 0, offset 77"]
        )
        await expect(opened.locator("#conversation")).to_contain_text(
            "Refused as wrong_type: 1 of its records, the last at offset 77."
        )
        await assert_accessible(opened)


async def test_logging_in_with_the_token_and_out_again(browser: Browser) -> None:
    async with site_at(TOKEN) as (_, url), open_page(browser, refused=401, **PHONE) as opened:
        await opened.goto(f"{url}/conversations/{MARK}")
        assert MARK not in await opened.content()
        await assert_accessible(opened)
        await save_screenshot(opened, "login-phone")
        await opened.get_by_label("Token of the query port").fill("wrong")
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("alert")).to_have_text("That is not the token.")
        await opened.get_by_label("Token of the query port").fill(TOKEN)
        await opened.get_by_role("button", name="Log in").click()
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        (cookie,) = await opened.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        await opened.goto(f"{url}/conversations/{MARK}")
        await expect(opened.get_by_role("heading", name=MARK)).to_be_visible()
        await opened.get_by_role("button", name="Log out").click()
        await expect(opened.get_by_role("button", name="Log in")).to_be_visible()
        assert await opened.context.cookies() == []


async def test_values_of_records_are_shown_and_never_run(browser: Browser) -> None:
    async with site_at() as (site, url), open_page(browser) as opened:
        apply(site, call(50, "connected", 0, HOSTILE, HOSTILE))
        await opened.goto(url)
        link = opened.locator("#oldest a").filter(has_text=HOSTILE)
        await expect(link).to_have_text(HOSTILE)
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        apply(site, call(51, "disconnected", 30, HOSTILE, HOSTILE, disconnectType=HOSTILE))
        await opened.locator("#feed a").filter(has_text=HOSTILE).first.click()
        await expect(opened.get_by_role("heading", name=HOSTILE).first).to_be_visible()
        await expect(opened.locator("#conversation h4").first).to_contain_text("disconnected")
        await expect(opened.locator("#conversation dd").first).to_have_text("p1")
        await expect(opened.locator("code")).to_contain_text("inspect '<img src=x")
        assert await opened.locator("img").count() == 0


async def test_every_page_has_the_policy_and_no_inline_script() -> None:
    async with serving("") as site:
        for path in (
            "/",
            f"/conversations/{MARK}",
            "/conversations/none",
            "/assets/page.css",
            "/assets/page.js",
            "/no",
        ):
            _, answer, body = await site.ask(path)
            assert (
                "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert not re.search(rb"<script(?![^>]*src=)|<style| style=| on[a-z]+=", body)
            assert not re.search(rb"(?:src|href|action)=\"(?:https?:)?//", body), "nothing from elsewhere"


async def test_streams_have_a_limit_and_end_with_the_server() -> None:
    async with serving("") as site:
        url = f"http://127.0.0.1:{site.port}/events"
        opened = [await site.client.get(url) for _ in range(live_page.STREAMS_MAX)]
        assert {stream.status for stream in opened} == {200}
        first = json.loads((await opened[0].content.readuntil(b"\n\n")).removeprefix(b"data: "))
        assert set(first) == {
            "verdict",
            "health",
            "live",
            "oldest",
            "feed",
            "dead",
            "troubled",
            "lanes",
            "status",
            "now",
        }
        status, answer, _ = await site.ask("/events")
        assert (status, answer.headers["Retry-After"]) == (503, "60")
        opened[0].close()
        async with asyncio.timeout(60):
            while (refused := await site.client.get(url)).status == 503:
                refused.close()
                await asyncio.sleep(0.05)
        for stream in (*opened, refused):
            stream.close()


@pytest.mark.parametrize("path", ["/events", "/events/live-1"])
async def test_a_client_that_leaves_its_stream_is_no_error(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """One that closes its side before the stream begins, too."""
    async with serving("") as site:
        for leave in ("close", "write_eof"):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            getattr(writer, leave)()
            async with asyncio.timeout(60):
                await reader.read()
                while site.server._server.connections:
                    await asyncio.sleep(0.01)
            writer.close()
        await asyncio.sleep(2 * live_page._TICK_S)
    assert caplog.records == []


async def test_a_stream_ends_with_its_conversation() -> None:
    async with serving("") as site:
        async with site.client.get(f"http://127.0.0.1:{site.port}/events/live-1") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            fragments = json.loads((await stream.content.readuntil(b"\n\n")).removeprefix(b"data: "))
            assert "alerting" in fragments["conversation"]
            site.worker.lanes[0].phase = "fenced"
            assert await stream.content.read() == b""
        assert (await site.ask("/events/live-1"))[0] == 404
        site.worker.lanes[0].phase = "running"
